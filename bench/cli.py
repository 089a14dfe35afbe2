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
@recipe_options
def evaluate(model: Path, recipe: Path, split: str, **found: Any) -> None:
    """Score MODEL, a checkpoint or a bundle, on RECIPE's data: the task's metric with its 95 % interval.

    \b
    Example:
      distill evaluate runs/sentiment/bundle recipes/sentiment.yaml
    """
    chosen = options(**found)
    loaded = load_recipe(recipe, chosen)
    quiet_libraries()
    from bench.quality import evaluate_folder

    score = evaluate_folder(model, loaded, recipe.parent, split)
    interval = f"95 % interval {score.low:.4f} to {score.high:.4f}"
    show(
        asdict(score), chosen.as_json, f"{score.metric} {score.value:.4f}  {interval}  n={score.n}  ({score.signature})"
    )
