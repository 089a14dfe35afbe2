"""Repeat a recipe over several seeds and say what holds on average: `python -m compress.seeds RECIPE`.

Each seed runs the recipe up to its int8 bundle, and beside it a twin that learns from the labels alone (alpha 0): what
distillation gains is the difference between the two. Everything is scored once, on the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import t as student_t

from bench.candidates import from_folder
from bench.markdown import table
from bench.tasks.classification import answer, texts_of
from compress import steps
from compress.low_rank.step import run_factorise
from compress.variants import variant
from distill import files, run
from distill.command import HELP, RECIPE, Options, call, load_recipe, quiet_libraries, set_up_logging
from distill.environment import cores
from distill.errors import GateError, RecipeError
from distill.metrics import compute
from distill.progress import Bars
from distill.recipe import Recipe
from distill.sources import default_cache
from distill.steps import Run, open_run, run_label, run_student, run_teach

Scores = dict[str, list[float]]
LEARNED = ("teacher", "student", "pruned", "factorised")
SHIPPED = ("fp32", "bundle")


@dataclass(frozen=True)
class Mean:
    """A figure over seeds: the mean, its 95 % t interval, and the value of each seed."""

    model: str
    mean: float
    low: float
    high: float
    values: tuple[float, ...]


def mean(model: str, values: Sequence[float]) -> Mean:
    """The mean of `values` with Student's t interval; one value has an interval without ends."""
    found = np.asarray(values, dtype=np.float64)
    half = np.inf
    if len(found) > 1:
        half = float(student_t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return Mean(model, float(found.mean()), float(found.mean() - half), float(found.mean() + half), tuple(values))


def run_seed(opened: Run) -> dict[str, float]:
    """One seed: the recipe to its bundle and the twin; test scores by model."""
    run_teach(opened)
    run_label(opened)
    _shrink(opened)
    steps.run_export(opened, steps.last_checkpoint(opened), "fp32")
    if opened.recipe.quantize is not None:
        _quantize(opened)
    twin = _twin(opened)
    _shrink(twin)
    found = _scores(opened, [name for name in (*LEARNED, *SHIPPED) if (opened.folder / name).is_dir()])
    others = _scores(twin, [name for name in LEARNED[1:] if (twin.folder / name).is_dir()])
    return found | {f"{name}, labels alone": value for name, value in others.items()}


def _shrink(opened: Run) -> None:
    """Student, and what the recipe makes of it: a pruned one, one in factors."""
    run_student(opened)
    if opened.recipe.prune is not None:
        steps.run_prune(opened, opened.recipe.prune)
    if opened.recipe.factorise is not None:
        run_factorise(opened, opened.recipe.factorise)


def _quantize(opened: Run) -> None:
    """Quantize; a bundle that the gate rejects is scored all the same, by its own name."""
    assert opened.recipe.quantize is not None
    try:
        steps.run_quantize(opened, opened.recipe.quantize)
    except GateError as error:
        click.echo(f"warning: {error}", err=True)


def _twin(opened: Run) -> Run:
    """The same run with alpha 0, on the same teacher and signals."""
    learning = ("student", "prune", "factorise")
    return variant(opened, "labels-alone", {name: {"alpha": 0.0} for name in learning if getattr(opened.recipe, name)})


def _scores(opened: Run, names: Sequence[str]) -> dict[str, float]:
    """Test scores of these folders."""
    rows, task = opened.dataset.splits["test"], opened.dataset.task
    gold = np.asarray(rows.labels)
    answers = {name: answer(from_folder(opened.folder / name), task, texts_of(rows), cores()) for name in names}
    return {name: compute(task.metric, gold, found.labels, task.num_labels) for name, found in answers.items()}


def summarise(scores: Scores) -> list[Mean]:
    """Means of every model, then of what is claimed: shares of the teacher, and gains over the twin."""
    rows = [mean(name, values) for name, values in scores.items()]
    claims: list[tuple[str, str, str, Callable[[float, float], float]]] = [
        ("bundle / teacher", "bundle", "teacher", lambda a, b: a / b),
        ("student - labels alone", "student", "student, labels alone", lambda a, b: a - b),
        ("pruned - labels alone", "pruned", "pruned, labels alone", lambda a, b: a - b),
        ("factorised - labels alone", "factorised", "factorised, labels alone", lambda a, b: a - b),
    ]
    for name, a, b, combine in claims:
        if a in scores and b in scores:
            rows.append(mean(name, [combine(x, y) for x, y in zip(scores[a], scores[b], strict=True)]))
    return rows


def markdown(rows: Sequence[Mean]) -> str:
    """The means as a table."""
    cells = [
        [row.model, f"{row.mean:.4f}", f"{row.low:.4f} to {row.high:.4f}", ", ".join(f"{v:.4f}" for v in row.values)]
        for row in rows
    ]
    return table(["model", "mean", "95 % t interval", "each seed"], cells)


def repeat(path: Path, recipe: Recipe, seeds: Sequence[int], folder: Path, report: Any) -> list[Mean]:
    """Run every seed below `folder`, and write `seeds.json` and `seeds.md` there.

    Raises:
        RecipeError: the recipe translates.
    """
    if recipe.task.kind != "classification":
        raise RecipeError(f"seeds are compared for classification alone, not for {recipe.task.kind}; run each seed")
    scores: Scores = {}
    n = 0
    for seed in seeds:
        seeded, place = recipe.model_copy(update={"seed": seed}), folder / f"seed-{seed}"
        with run.lock(place):
            opened = open_run(seeded, place, path.parent, default_cache(), False, report)
            for name, value in run_seed(opened).items():
                scores.setdefault(name, []).append(value)
        n = len(opened.dataset.splits["test"])
    rows = summarise(scores)
    about = {"recipe": recipe.model_dump(mode="json"), "seeds": list(seeds), "n": n}
    files.write_json(folder / "seeds.json", {**about, "rows": [_finite(asdict(row)) for row in rows]})
    files.write_text(folder / "seeds.md", f"{markdown(rows)}\n\ntest rows a seed: n={n}\n")
    return rows


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose infinite ends are null."""
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}


def seeds_of(text: str) -> list[int]:
    """The numbers in "1,2,3".

    Raises:
        RecipeError: something else stands there.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise RecipeError(f"--seeds: expected numbers parted by commas, as in 1,2,3, found {text!r}")
    return [int(part) for part in parts]


@click.command(context_settings=HELP)
@RECIPE
@click.option("--seeds", default="1,2,3", show_default=True, help="Seeds, parted by commas.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder (default: runs/NAME-seeds).")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
def seeds_command(recipe: Path, seeds: str, output: Path | None, overrides: tuple[str, ...]) -> None:
    """Repeat RECIPE over seeds, with a twin that learns from the labels alone."""
    set_up_logging()
    loaded = load_recipe(recipe, Options(output, overrides, False, False, False, False))
    quiet_libraries()
    with Bars() as bars:
        rows = repeat(recipe, loaded, seeds_of(seeds), output or Path("runs") / f"{loaded.name}-seeds", bars)
    click.echo(markdown(rows))


if __name__ == "__main__":
    call(seeds_command)
