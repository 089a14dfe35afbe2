"""The order of folders that plans show is the order in which they are made."""

from __future__ import annotations

from typing import Any

import pytest

from compress.order import checkpoints, folders, fresh_plan
from compress.pipeline import stages
from distill.recipe import parse

LEAST: dict[str, Any] = {"name": "toy", "data": {"source": "toy.csv"}, "teacher": {"model": "encoder"}}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"prune": {"heads": 0.5}},
        {"quantize": None},
        {"prune": {"neurons": 0.1}, "quantize": None},
        {"factorise": {"energy": 0.9}},
        {"factorise": {}, "prune": {"heads": 0.5}},
        {"factorise": {}, "task": {"kind": "translation"}},
    ],
)
def test_the_plan_is_what_is_done(change: dict[str, Any]) -> None:
    recipe = parse({**LEAST, **change}, "recipe.yaml")
    assert tuple(stage.folder for stage in stages(recipe)) == folders(recipe)


def test_factors_come_after_pruning_and_are_what_is_exported() -> None:
    recipe = parse({**LEAST, "prune": {"heads": 0.5}, "factorise": {}}, "recipe.yaml")
    assert folders(recipe)[2:6] == ("student", "pruned", "factorised", "teacher-fp32")
    assert checkpoints(recipe) == ("teacher", "student", "pruned", "factorised")


def test_translation_has_the_same_order() -> None:
    for change in ({}, {"prune": {"heads": 0.5}}):
        recipe = parse({**LEAST, "task": {"kind": "translation"}, **change}, "recipe.yaml")
        assert tuple(stage.folder for stage in stages(recipe)) == folders(recipe) == tuple(fresh_plan(recipe))
