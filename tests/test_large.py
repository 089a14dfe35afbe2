from __future__ import annotations

from pathlib import Path

from bench.large import ROWS, recipe, write_rows
from distill.data import read
from distill.recipe import parse


def test_the_recipe_and_its_rows_fit_each_other(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    checked = parse(recipe([1]), "large")
    dataset = read(checked.data, checked.task, checked.seed, tmp_path)
    assert dataset.task.labels == ("film", "food")
    assert sum(len(split) for split in dataset.splits.values()) > ROWS / 2  # repeated rows are dropped
    assert checked.student.layers == 6
