"""Reading recipe files: strict YAML, `--set` overrides, and messages that name the nearest valid key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from distill.errors import RecipeError

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars (`no` is text, `1e-5` a number) and no key twice."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False", "tfTF"),
    ("null", r"null|Null|~|", "nN~\0"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [c if c != "\0" else "" for c in _first]
    )


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping whose keys are all different."""
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a word as key", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would take for something else than text."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def write_yaml(value: Any) -> str:
    """Plain values as YAML that `parse_yaml` reads back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120)  # escaped: some line breaks get lost raw


def parse_yaml(text: str) -> Any:
    """Parse YAML without objects, tags or duplicate keys.

    Raises:
        yaml.YAMLError: the text is not such YAML.
    """
    return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain values only


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file.

    Raises:
        RecipeError: not there, not UTF-8, or not YAML; with line and column.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 (byte {error.start}); convert it with iconv") from error
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not a YAML recipe", [_yaml_problem(error)]) from error
    except RecursionError as error:
        raise RecipeError(f"{path} is nested too deeply") from error


def _yaml_problem(error: yaml.YAMLError) -> str:
    """A YAML error in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)


def with_overrides(value: Any, overrides: Sequence[str]) -> Any:
    """The recipe's values with each `a.b=c` put on top; `c` is read as YAML.

    Raises:
        RecipeError: an override that is not `key=value`, or goes through something that is not a section.
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise RecipeError(f"--set {override}: expected KEY=VALUE, for example --set student.layers=2")
        value = _put(value, path.split("."), _value(override, text))
    return value


def _value(override: str, text: str) -> Any:
    """An override's value."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: the value is not YAML", [_yaml_problem(error)]) from error
    except RecursionError as error:
        raise RecipeError(f"--set {override[:60]}…: the value is nested too deeply") from error


def _put(value: Any, path: list[str], leaf: Any) -> Any:
    """A copy of `value` with `leaf` at `path`; sections on the way are made."""
    if not path:
        return leaf
    section = {} if value is None else value
    if not isinstance(section, dict):
        raise RecipeError(f"--set …{'.'.join(path)}: what it goes through is not a section of the recipe")
    return {**section, path[0]: _put(section.get(path[0]), path[1:], leaf)}


def checked(model: type[Model], value: object, where: str) -> Model:
    """Validate plain values against a pydantic model.

    Raises:
        RecipeError: with every problem, its key path and the nearest valid key.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [_problem(model, dict(detail)) for detail in error.errors()]
        raise RecipeError(f"{where} has {len(problems)} problem{'s' * (len(problems) > 1)}", problems) from error


def _problem(model: type[BaseModel], detail: dict[str, Any]) -> str:
    """One validation problem, with the nearest valid key when the key is unknown."""
    path = tuple(str(part) for part in detail["loc"])
    name = ".".join(path) or "the recipe"
    if detail["type"] == "extra_forbidden":
        known = _keys(model, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        return f"{name}: unknown key; {hint}"
    found = "" if detail["type"] in ("missing", "value_error") else f" (found {detail['input']!r:.60})"
    return f"{name}: {detail['msg'].removeprefix('Value error, ')}{found}"


def _keys(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """The valid keys of the section at `path`."""
    for part in path:
        field = model.model_fields.get(part)
        section = section_of(field.annotation) if field else None
        if section is None:
            return []
        model = section
    return list(model.model_fields)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section a field holds, if it holds one (perhaps an optional one)."""
    choices = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), None)
