"""Whatever stands in a recipe file, reading it gives a recipe or a RecipeError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.errors import RecipeError
from distill.recipe import Recipe, load, parse
from distill.recipe_file import parse_yaml, write_yaml

SHARED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
LEAST: dict[str, Any] = {"name": "toy", "data": {"source": "toy.csv"}, "teacher": {"model": "encoder"}}


def paths(model: Any, start: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The key paths of all fields."""
    found = []
    for name, field in model.model_fields.items():
        found.append((*start, name))
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            found += paths(inner, (*start, name)) if hasattr(inner, "model_fields") else []
    return found


PATHS = paths(Recipe)


def put(value: dict[str, Any], path: tuple[str, ...], leaf: object) -> dict[str, Any]:
    inner = value.get(path[0])
    below = leaf if len(path) == 1 else put(inner if isinstance(inner, dict) else {}, path[1:], leaf)
    return {**value, path[0]: below}


def recipe_or_error(read: Any) -> Recipe | None:
    try:
        found = read()
    except RecipeError as error:
        assert str(error) and error.exit_code == 2
        return None
    assert isinstance(found, Recipe)
    return found


@SHARED
@given(data=st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data)
    recipe_or_error(lambda: load(path))


@SHARED
@given(text=st.text(alphabet=st.sampled_from("abc019.-+eE:{}[],&*!|>'\"#%@`?~ \n\t<=_"), max_size=60))
def test_any_text_made_of_yamls_own_signs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    recipe_or_error(lambda: load(path))


@SHARED
@given(value=VALUES)
def test_any_value(value: object) -> None:
    recipe_or_error(lambda: parse(value, "recipe.yaml"))


@SHARED
@given(path=st.sampled_from(PATHS), leaf=VALUES)
def test_any_value_at_any_key_and_what_is_read_can_be_written(path: tuple[str, ...], leaf: object) -> None:
    found = recipe_or_error(lambda: parse(put(LEAST, path, leaf), "recipe.yaml"))
    if found is not None:
        again = parse_yaml(write_yaml(found.model_dump(mode="json")))
        assert parse(again, "again") == found


@SHARED
@given(path=st.sampled_from(PATHS), leaf=st.text(max_size=20))
def test_any_override(tmp_path: Path, path: tuple[str, ...], leaf: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(LEAST), encoding="utf-8")
    recipe_or_error(lambda: load(file, (f"{'.'.join(path)}={leaf}",)))


@SHARED
@given(key=st.sampled_from(PATHS).map(lambda path: path[-1]), at=st.integers(0, 30))
def test_a_key_with_one_letter_missing_is_named(key: str, at: int) -> None:
    wrong = key[: at % len(key)] + key[at % len(key) + 1 :]
    if wrong in Recipe.model_fields or not wrong:
        return
    with pytest.raises(RecipeError) as found:
        parse({**LEAST, wrong: 1}, "recipe.yaml")
    assert found.value.problems[0].startswith(f"{wrong}: unknown key; ")


@SHARED
@given(value=st.text(max_size=20))
def test_quoted_text_stays_text(value: str) -> None:
    assert parse_yaml(yaml.safe_dump({"a": value}, default_style='"', allow_unicode=False)) == {"a": value}


@SHARED
@given(value=st.text(max_size=20) | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_written_yaml_reads_back_unchanged(value: object) -> None:
    assert parse_yaml(write_yaml({"a": value})) == {"a": value}
