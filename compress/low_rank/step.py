"""The step that puts a student's maps in factors, and lets it recover."""

from __future__ import annotations

from pathlib import Path

from compress.low_rank.factorise import factorise
from compress.order import checkpoints
from distill import run
from distill.checkpoint import save
from distill.recipe import FactoriseRecipe
from distill.sections import settings
from distill.steps import Manifest, Run, trained
from distill.tasks import KINDS

SHARE = 0.5
"""Of the parameters stays where the recipe names neither share."""


def factorise_step(opened: Run, recipe: FactoriseRecipe) -> run.Step:
    """The step that makes `factorised/`."""
    source = _source(opened)
    needed = [(source, f"compress run (step {source})")]
    needed += [] if recipe.targets == "references" else [("signals", "distill label")]
    inputs = {name: run.output_sum(opened.made(name, by)) for name, by in needed}
    given = {"seed": opened.recipe.seed, "factorise": settings(recipe, opened.dataset.task.kind)}
    return opened.step("factorise", "factorised", given, inputs)


def run_factorise(opened: Run, recipe: FactoriseRecipe) -> Manifest:
    """Put maps of the student, or of the pruned one, in factors and let it recover, into `factorised/`.

    Raises:
        RecipeError: no rank saves anything.
    """
    task = opened.dataset.task
    kind = KINDS[task.kind]

    def make(folder: Path) -> Manifest:
        model, tokenizer = kind.load(opened.folder / _source(opened))
        batches = kind.asked_batches(opened, model, tokenizer, recipe, recipe.calibration_examples)
        found = factorise(
            *(model, batches, kind.row_loss(recipe)),
            energy=recipe.energy,
            parameters=SHARE if recipe.energy is None and recipe.parameters is None else recipe.parameters,
            weighting=recipe.weighting,
        )
        result = kind.recover(opened, found.model, tokenizer, recipe, "factorise")
        save(found.model, tokenizer, task, folder)
        return {**result, "ranks": dict(found.ranks), "parameters": found.parameters, "energy": found.energy}

    return trained(opened, factorise_step(opened, recipe), make)


def _source(opened: Run) -> str:
    """The checkpoint before this one."""
    return checkpoints(opened.recipe)[-2]
