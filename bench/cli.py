"""The `evaluate` command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distill.command import RECIPE, load_recipe, options, quiet_libraries, recipe_options, set_up_logging, show


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


@click.command()
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Texts in a batch of ids.")
@click.option("--length", type=click.IntRange(min=2), default=64, show_default=True, help="Tokens of each text.")
@click.option(
    "--texts", type=click.Path(path_type=Path), help="Translation: real sentences, a line each (five at most)."
)
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds to take medians of (default: 30; translation 5).")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File for the JSON as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def layers(
    bundles: tuple[Path, ...],
    batch: int,
    length: int,
    texts: Path | None,
    rounds: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show what each layer of BUNDLES costs, side by side: bytes, parameters, int8 products, milliseconds.

    The first bundle is before, the last one after. Times are those of onnxruntime's own profile on one thread.

    \b
    Example:
      compress layers runs/sentiment/teacher-fp32 runs/sentiment/bundle
    """
    set_up_logging()
    from bench.layer_costs import Asked, read_lines
    from bench.layer_report import layers_of_folders
    from bench.layer_report import show as show_layers

    asked = Asked(batch, length, rounds, read_lines(texts) if texts else ())
    show_layers(layers_of_folders(bundles, asked), as_json, output)
