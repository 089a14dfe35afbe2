"""The main job: every step of a recipe, in order, skipping what is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from compress import steps
from compress.low_rank.step import factorise_step, run_factorise
from compress.order import checkpoints
from distill import run
from distill.errors import GateError, RecipeError, RunError
from distill.recipe import Recipe
from distill.steps import STEPS, Manifest, Run

LOG = logging.getLogger("potstill")


@dataclass(frozen=True)
class Stage:
    """One step of the whole run: the folder it makes, its fingerprint, and its work."""

    folder: str
    step: Callable[[Run], run.Step]
    work: Callable[[Run], Manifest]


def stages(recipe: Recipe) -> list[Stage]:
    """What the recipe asks for, in order."""
    found = [Stage(folder, *STEPS[name]) for folder, name in _LEARNING]
    if recipe.prune is not None:
        found.append(_bound("pruned", steps.prune_step, steps.run_prune, recipe.prune))
    if recipe.factorise is not None:
        found.append(_bound("factorised", factorise_step, run_factorise, recipe.factorise))
    found += [_export("teacher", "teacher-fp32"), _export(checkpoints(recipe)[-1], "fp32")]
    if recipe.quantize is not None:
        found.append(_bound("bundle", steps.quantize_step, steps.run_quantize, recipe.quantize))
    else:
        found.append(Stage("bundle", steps.ship_step, steps.ship_fp32))
    return [*found, Stage("report", steps.bench_step, steps.run_bench)]


_LEARNING = (("teacher", "teach"), ("signals", "label"), ("student", "student"))


def _bound(folder: str, step: Callable[..., run.Step], work: Callable[..., Manifest], settings: object) -> Stage:
    """A stage whose functions take their part of the recipe."""
    return Stage(folder, lambda opened: step(opened, settings), lambda opened: work(opened, settings))


def _export(checkpoint: str, target: str) -> Stage:
    """Export one checkpoint."""
    step = partial(steps.export_step, checkpoint=checkpoint, target=target)
    return Stage(target, step, partial(steps.run_export, checkpoint=checkpoint, target=target))


def run_all(opened: Run) -> Path:
    """Run what is not done yet; the report's folder comes back.

    A gate that was not passed does not keep the report from being made: `fp32/` is measured and can be shipped.

    Raises:
        GateError: after everything else, when no int8 bundle holds the quality asked for.
    """
    failed: GateError | None = None
    for stage in stages(opened.recipe):
        LOG.info("%s", stage.folder)
        try:
            stage.work(opened)
        except GateError as error:
            failed = error
    if failed is not None:
        raise failed
    return opened.folder / "report"


def plan(opened: Run) -> dict[str, str]:
    """What `run_all` would do with each folder: "up to date", "to do", or why it cannot."""
    return {stage.folder: _state(stage, opened) for stage in stages(opened.recipe)}


def _state(stage: Stage, opened: Run) -> str:
    """One folder's state."""
    try:
        return "up to date" if run.is_done(stage.step(opened)) else "to do"
    except RunError:
        return "to do"
    except RecipeError as error:
        return str(error)
