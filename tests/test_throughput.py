from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_translation import write_translation_project

from bench.throughput import ways
from distill.errors import RecipeError
from distill.recipe import parse


def test_both_ways_train_the_same_student(project: Any, tmp_path: Path) -> None:
    found = ways(parse(project.value(), "toy"), project.folder, steps=2)
    for name, train in found.items():
        (tmp_path / name).mkdir()
        assert train(tmp_path / name) > 0
    assert set(found) == {"fine-tuning", "distilling"}


def test_translation_is_refused(tmp_path: Path) -> None:
    toy = write_translation_project(tmp_path / "toy")
    with pytest.raises(RecipeError, match=r"the recipe's task\.kind is translation"):
        ways(parse(toy.value(), "toy"), toy.folder, steps=2)
