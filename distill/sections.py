"""What all sections of a recipe share: strict keys, common types of values, and which kind of task a key belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

Items = TypeVar("Items", bound=tuple[object, ...])
CLASSIFICATION: dict[str, Any] = {"kind": "classification"}
"""Marks a key that only classification has: `Field(…, json_schema_extra=CLASSIFICATION)`."""
TRANSLATION: dict[str, Any] = {"kind": "translation"}
"""Marks a key that only translation has."""


def _label(value: object) -> object:
    """Labels are text: a number written without quotes is taken as its digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _different(values: Items) -> Items:
    """No value twice."""
    if len(set(values)) < len(values):
        raise ValueError("expected different values")
    return values


Label = Annotated[str, BeforeValidator(_label)]
Different = AfterValidator(_different)
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of the recipe: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def kind_of(field: FieldInfo) -> str | None:
    """The kind of task that a key belongs to; None for keys that all kinds have."""
    extra = field.json_schema_extra
    return str(extra["kind"]) if isinstance(extra, dict) and "kind" in extra else None


def settings(section: BaseModel, kind: str) -> dict[str, Any]:
    """A section's JSON values without the keys of other kinds of task: what a step's fingerprint holds."""
    found = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if kind_of(field) not in (None, kind):
            del found[name]
        elif isinstance(value, BaseModel):
            found[name] = settings(value, kind)
    return found


def foreign(section: BaseModel, kind: str, path: str = "") -> Iterator[str]:
    """The keys that were given, not as they are by default, and belong to another kind of task."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if kind_of(field) not in (None, kind):
            if value != field.get_default():
                yield f"{path}{name}"
        elif isinstance(value, BaseModel):
            yield from foreign(value, kind, f"{path}{name}.")
