"""Examples per second of distilling from stored logits against plain fine-tuning of the same student.

`python -m bench.throughput RECIPE`: both are trained in turn, the same steps on the same rows, and compared by round.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import numpy as np

from bench.compare import median_interval
from distill import data
from distill.checkpoint import fetch, load_model, load_tokenizer
from distill.command import HELP, RECIPE, Options, call, load_recipe, quiet_libraries
from distill.errors import RecipeError
from distill.label import label
from distill.models import copied
from distill.recipe import DistillationTraining, Recipe, TrainingRecipe
from distill.sources import default_cache
from distill.student import distil
from distill.teach import teach

Ways = dict[str, Callable[[Path], float]]


def ways(recipe: Recipe, base: Path, steps: int) -> Ways:
    """Both ways of training the recipe's student, each giving examples per second.

    Raises:
        RecipeError: the recipe is not for classification.
    """
    if recipe.task.kind != "classification":
        raise RecipeError(f"bench.throughput compares classifiers; the recipe's task.kind is {recipe.task.kind}")
    dataset = data.read(recipe.data, recipe.task, recipe.seed, base)
    source = fetch(str(recipe.teacher.model), base, default_cache())
    teacher, tokenizer = load_model(source, dataset.task, recipe.seed), load_tokenizer(source)
    signals = label(teacher, tokenizer, dataset, "")
    changes = {"max_steps": steps, "eval_strategy": "steps", "eval_steps": steps}
    own = recipe.student.training or DistillationTraining()
    training = TrainingRecipe.model_validate({**own.model_dump(), **changes})
    settings = recipe.student.model_copy(update={"training": training})

    def plain(work: Path) -> float:
        student = copied(teacher, recipe.student)
        return float(teach(student, tokenizer, dataset, training, work, recipe.seed)["examples_per_second"])

    def distilled(work: Path) -> float:
        student = copied(teacher, recipe.student)
        return float(distil(student, tokenizer, dataset, signals, settings, work, recipe.seed)["examples_per_second"])

    return {"fine-tuning": plain, "distilling": distilled}


@click.command(context_settings=HELP)
@RECIPE
@click.option("--steps", default=60, show_default=True, help="Training steps a round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; both ways are trained in each.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
def throughput(recipe: Path, steps: int, rounds: int, overrides: tuple[str, ...]) -> None:
    """Compare distilling with fine-tuning of RECIPE's student."""
    loaded = load_recipe(recipe, Options(None, overrides, False, False, False, False))
    quiet_libraries()
    found: dict[str, list[float]] = {}
    chosen = ways(loaded, recipe.parent, steps)
    for number in range(rounds):
        order = list(chosen.items())
        for name, run in order if number % 2 else reversed(order):
            with tempfile.TemporaryDirectory() as work:
                found.setdefault(name, []).append(run(Path(work)))
    ratio = median_interval(np.asarray(found["distilling"]) / np.asarray(found["fine-tuning"]))
    medians = {name: median(values) for name, values in found.items()}
    click.echo(json.dumps({"examples_per_second": medians, "ratio": vars(ratio), "steps": steps, "rounds": rounds}))


if __name__ == "__main__":
    call(throughput)
