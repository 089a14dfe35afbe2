"""The `evaluate` command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distill.command import RECIPE, load_recipe, options, quiet_libraries, recipe_options, show


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@RECIPE
@click.option("--split", type=click.Choice(["validation", "test"]), default="test", show_default=True)
@click.option("--beams", type=click.IntRange(1, 64), help="Translation: width of the search (default: bench.beams).")
@recipe_options
def evaluate(model: Path, recipe: Path, split: str, beams: int | None, **found: Any) -> None:
    """Score MODEL, a checkpoint or a bundle, on RECIPE's data: the task's metric with its 95 % interval.

    Translations get BLEU and chrF. With --json the task's metric is one object, others stand in its `others`.

    \b
    Example:
      distill evaluate runs/sentiment/bundle recipes/sentiment.yaml
    """
    chosen = options(**found)
    loaded = load_recipe(recipe, chosen)
    quiet_libraries()
    from bench.evaluate import evaluate_folder
    from bench.words import score_line

    first, *others = evaluate_folder(model, loaded, recipe.parent, split, beams)
    value = asdict(first) | ({"others": [asdict(other) for other in others]} if others else {})
    show(value, chosen.as_json, "\n".join(score_line(score) for score in (first, *others)))
