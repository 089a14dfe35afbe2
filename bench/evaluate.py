"""One model's scores on a recipe's data."""

from __future__ import annotations

from pathlib import Path

from bench.candidates import from_folder
from bench.tasks import KINDS
from distill.data import read
from distill.environment import cores
from distill.errors import RecipeError
from distill.metrics import Score
from distill.recipe import Recipe


def evaluate_folder(folder: Path, recipe: Recipe, base: Path, split: str, beams: int | None = None) -> list[Score]:
    """A checkpoint's or bundle's scores on a split, the task's metric first; translation is searched with `beams`.

    Raises:
        RecipeError: beams where there is nothing to search.
        DataError, CheckpointError, BundleError: the data or the model cannot be used.
    """
    if beams is not None and recipe.task.kind != "translation":
        raise RecipeError(f"--beams goes with translation, this recipe's task is {recipe.task.kind}")
    dataset = read(recipe.data, recipe.task, recipe.seed, base)
    rows, task, kind = dataset.splits[split], dataset.task, KINDS[dataset.task.kind]
    width = beams or recipe.bench.beams[0]
    found = kind.answer(from_folder(folder), task, kind.texts_of(rows), cores(), width)
    return kind.scores(found, rows, task, recipe.seed)
