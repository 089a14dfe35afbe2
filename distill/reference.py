"""The recipe reference, written from the recipe's model: `python -m distill.reference > docs/recipe.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from distill.recipe import Recipe
from distill.recipe_file import section_of
from distill.sections import kind_of

Schema = Mapping[str, Any]
HEAD = """\
# Recipe reference

Made by `python -m distill.reference` from `distill/recipe.py`; a test keeps it up to date.

A recipe is YAML. Only `name`, `data` and `teacher.model` (or `teacher.config`) must be given. A key that is not listed
here is an error, and all errors are reported at once. `--set section.key=value` changes any key from the command line.
Paths are relative to the recipe's folder. Keys marked (classification) or (translation) go with this `task.kind` alone.
"""
NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def reference() -> str:
    """The whole reference as Markdown."""
    return "\n".join([HEAD, *_section("", Recipe, {})])


def _section(path: str, model: type[BaseModel], told: dict[type, str]) -> Iterator[str]:
    """One section's table, then the sections in it; `told` remembers where a model's keys were listed."""
    told[model] = path
    title = f"`{path}`" if path else "The recipe"
    yield f"## {title}\n\n{_text(model)}\n\n| key | type | default | what |\n|---|---|---|---|"
    yield from _rows(model)
    yield ""
    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            yield from _inner(f"{path}.{name}".lstrip("."), inner, told)


def _rows(model: type[BaseModel]) -> Iterator[str]:
    """One line a key."""
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        kind = _kind(schema[name]) if inner is None else _section_kind(schema[name])
        text = field.description or (_text(inner) if inner else "")
        text += f" ({kind_of(field)})" if kind_of(field) else ""
        yield f"| `{name}` | {kind} | {_default(field.get_default())} | {text} |"


def _inner(path: str, model: type[BaseModel], told: dict[type, str]) -> Iterator[str]:
    """A section in a section; keys that were listed before are not listed again."""
    before = next((base for base in model.__mro__ if base in told), None)
    if before is None:
        yield from _section(path, model, told)
        return
    fields, known = model.model_fields, cast(type[BaseModel], before).model_fields
    other = [key for key, field in fields.items() if field.get_default() != known[key].get_default()]
    also = "".join(f"; `{key}` is {_default(fields[key].get_default())} if left out" for key in other)
    yield f"## `{path}`\n\nThe keys of `{told[before]}`{also}.\n"


def _text(model: type[BaseModel]) -> str:
    """A section's docstring as one paragraph."""
    return " ".join((model.__doc__ or "").split())


def _section_kind(schema: Schema) -> str:
    """A section, perhaps one that may be left out."""
    return "section or null" if any(choice.get("type") == "null" for choice in schema.get("anyOf", [])) else "section"


def _kind(schema: Schema) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    if schema["type"] == "object":
        return "mapping" if schema.get("additionalProperties") is True else "mapping of text to text"
    limits = [f"{sign} {schema[key]:g}" for key, sign in LIMITS.items() if key in schema]
    return " ".join([NAMES[schema["type"]], ", ".join(limits)]).strip()


def _default(value: Any) -> str:
    """A default as it would be written."""
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return ""
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
