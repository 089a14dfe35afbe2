from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.throughput import ways
from distill.recipe import parse


def test_both_ways_train_the_same_student(project: Any, tmp_path: Path) -> None:
    found = ways(parse(project.value(), "toy"), project.folder, steps=2)
    for name, train in found.items():
        (tmp_path / name).mkdir()
        assert train(tmp_path / name) > 0
    assert set(found) == {"fine-tuning", "distilling"}
