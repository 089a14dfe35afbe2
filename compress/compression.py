"""What each way of making models smaller gains and costs: `python -m compress.compression FOLDER RECIPE…`.

Of a recipe for classification the teacher is pruned, to its student's layers and to twice and three times its speed,
and quantized; all of them learn from the same signals and are measured in turns, in fp32 on one thread. Of a recipe for
translation the student is pruned further, as the recipe says, and compared in int8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from bench.candidates import from_folder
from bench.measure import Plan, Progress, measure, write_all
from compress import steps
from compress.compression_goals import goals, means
from compress.low_rank.step import run_factorise
from compress.quantization.quantize import REJECTED
from compress.seeds import seeds_of
from compress.variants import Changes, variant
from distill import run
from distill.command import HELP, Options, call, load_recipe, quiet_libraries, set_up_logging
from distill.config_file import read_config
from distill.errors import GateError, RecipeError
from distill.files import write_text
from distill.models import chosen_layers
from distill.progress import Bars
from distill.recipe import BenchRecipe, PruneRecipe, QuantizeRecipe, Recipe
from distill.report import REPORT_FILE, Report, merge, read_report, write_report
from distill.sources import default_cache
from distill.steps import Run, open_run, run_label, run_student, run_teach

CELLS = BenchRecipe(batch_sizes=(1, 8, 32), lengths=(16, 64, 128), threads=(1,))


@dataclass(frozen=True)
class Method:
    """A way of making a teacher smaller: keys of the section `prune`, of `factorise`, or of both, and one recovery.

    How they learn from the teacher again stands in the recipe's own `prune` section. `fewer`: of the teacher's layers
    those of the recipe's student stay.
    """

    name: str
    prune: Mapping[str, Any] | None = None
    factorise: Mapping[str, Any] | None = None
    fewer: bool = False


NOTHING = MappingProxyType({"heads": 0.0, "neurons": 0.0})
FREE = MappingProxyType({"heads": None, "neurons": None, "importance": "fisher"})
METHODS = (
    Method("fewer layers", NOTHING, fewer=True),
    Method("fewer layers, int8 in training", {**NOTHING, "quantization_aware": True}, fewer=True),
    Method("fewer layers, 3x", {**FREE, "speedup": 3.0}, fewer=True),
    Method("fewer layers, low rank", NOTHING, {"parameters": 0.5}, fewer=True),
    Method("heads and neurons, 2x", {**FREE, "speedup": 2.0}),
    Method("heads and neurons, 3x", {**FREE, "speedup": 3.0}),
    Method("heads and neurons by magnitude, 2x", {**FREE, "speedup": 2.0, "importance": "magnitude"}),
    Method("heads and neurons by movement", {"heads": 0.5, "neurons": 0.7, "importance": "movement"}),
    Method("width", {**NOTHING, "width": 0.5}),
    Method("low rank", factorise={"parameters": 0.4}),
)
QUANTIZED = ("fewer layers", "fewer layers, int8 in training")
"""The methods whose models are also quantized, in every way."""


def classification(
    path: Path, recipe: Recipe, folder: Path, seconds: float, bars: Progress, methods: Sequence[Method]
) -> Report:
    """All methods on one recipe's data; what is there already is not made again."""
    with run.lock(folder):
        opened = open_run(recipe, folder, path.parent, default_cache(), False, bars)
        run_teach(opened)
        run_label(opened)
        steps.run_export(opened, "teacher", "teacher-fp32")
        made = {method.name: _made(opened, method) for method in methods}
        cells = CELLS.model_copy(update={"seconds_per_cell": seconds})
        own = [from_folder(folder / "teacher-fp32", f"{recipe.name} teacher")]
        own += [from_folder(each.folder / "fp32", f"{recipe.name} {name}") for name, each in made.items()]
        report = measure("compression", own, cells, opened.dataset, seed=recipe.seed, progress=bars)
        found = [report, *(_quantized(made[name], f"{recipe.name} {name}", bars) for name in QUANTIZED if name in made)]
    return _kept(reduce(merge, found), folder)


def _made(opened: Run, method: Method) -> Run:
    """One method's run up to its fp32 bundle."""
    place = method.name.replace(",", "").replace(" ", "-")
    made = variant(opened, place, _changes(opened, method))
    run_student(made)
    if made.recipe.prune is not None:
        steps.run_prune(made, made.recipe.prune)
    if made.recipe.factorise is not None:
        run_factorise(made, made.recipe.factorise)
    steps.run_export(made, steps.last_checkpoint(made), "fp32")
    return made


def _changes(opened: Run, method: Method) -> Changes:
    """What a method changes in the recipe: its student is the teacher itself, which is made smaller and recovers."""
    total = _all_layers(opened)
    own = (opened.recipe.prune or PruneRecipe()).model_dump(mode="json", include=set(RECOVERY))
    prune, factorise = method.prune, method.factorise
    if prune is not None and method.fewer:
        prune = {**prune, "layers": chosen_layers(opened.recipe.student.layers, total)}
    if prune is not None and prune.get("importance") == "movement" and own["training"]:
        prune = {**prune, "training": {**own["training"], "ema_decay": 0.0, "early_stopping_patience": 0}}
    if prune is not None and factorise is not None:
        prune = {**prune, "training": None}
    if factorise is not None:
        factorise = {**own, **factorise}
    return {"student": {"layers": total, "training": None}, "prune": prune, "factorise": factorise}


RECOVERY = ("temperature", "alpha", "training")


def _all_layers(opened: Run) -> int:
    """How many layers the teacher has."""
    return int(read_config(opened.folder / "teacher" / "config.json").num_hidden_layers)


def _quantized(made: Run, name: str, bars: Progress) -> Report:
    """A model's int8 forms with all products in int8, pass or not, compared with its fp32 one on the test split."""
    settings = (made.recipe.quantize or QuantizeRecipe()).model_copy(update={"exclude": ()})
    ways = {way: settings.model_copy(update={"methods": (way,)}) for way in ("dynamic", "static")}
    found = [_int8(made, form, "fp32", f"fp32-{way}") for way, form in ways.items()]
    own = [from_folder(made.folder / "fp32", name), *(from_folder(folder, name) for folder in found)]
    report = measure("compression", own, CELLS, made.dataset, plan=Plan(latency=False, memory=False), progress=bars)
    others = [row for row in report.quality if row.precision != "fp32"]
    return replace(report, quality=tuple(others), size=report.size[1:])


def _int8(made: Run, settings: QuantizeRecipe, source: str, target: str) -> Path:
    """The folder of an int8 bundle of the fp32 one in `source`, or of what the gate rejects."""
    try:
        steps.run_quantize(made, settings, source, target)
    except GateError as error:
        click.echo(f"warning: {error}", err=True)
        target = f"{REJECTED}{target}"
    return made.folder / target


def translation(path: Path, recipe: Recipe, folder: Path, seconds: float, bars: Progress) -> Report:
    """A recipe's student, and what is left of it after pruning, in int8, the smaller one with a shortlist, too.

    Raises:
        RecipeError: the recipe does not prune.
    """
    if recipe.prune is None:
        raise RecipeError(f"{path} has no `prune` section: expected one that says how its student is made smaller")
    with run.lock(folder):
        opened = open_run(recipe, folder, path.parent, default_cache(), False, bars)
        for step in (run_teach, run_label, run_student):
            step(opened)
        steps.run_prune(opened, recipe.prune)
        for name in ("student", "pruned"):
            steps.run_export(opened, name, f"{name}-fp32")
        plain = (recipe.quantize or QuantizeRecipe()).model_copy(update={"shortlist": 0})  # a recipe may name one
        listed = plain.model_copy(update={"shortlist": NEAREST})
        own = [
            from_folder(_int8(opened, plain, "student-fp32", "student-int8"), f"{recipe.name} student"),
            from_folder(_int8(opened, plain, "pruned-fp32", "pruned-int8"), f"{recipe.name} pruned"),
            from_folder(_int8(opened, listed, "pruned-fp32", "shortlist-int8"), f"{recipe.name} pruned, shortlist"),
        ]
        cells = recipe.bench.model_copy(update={"threads": (1,), "seconds_per_cell": seconds})
        report = measure("compression", own, cells, opened.dataset, seed=recipe.seed, progress=bars)
    return _kept(report, folder)


def _kept(report: Report, folder: Path) -> Report:
    """The report of one recipe's data, with its pictures written to `comparison/`: `report/` may be the run's own."""
    write_all(report, folder / "comparison")
    return report


NEAREST = 16
"""Likely translations of each source piece in the shortlist."""


def compressed(
    path: Path, recipe: Recipe, folder: Path, seconds: float, bars: Progress, methods: Sequence[Method]
) -> Report:
    """All that is made of one recipe's models; `methods` are for classification."""
    if recipe.task.kind == "translation":
        return translation(path, recipe, folder, seconds, bars)
    return classification(path, recipe, folder, seconds, bars, methods)


@click.command(context_settings=HELP)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("recipes", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--seconds", default=3.0, show_default=True, help="Time for each cell, all models together.")
@click.option("--only", multiple=True, type=click.Choice([method.name for method in METHODS]), help="Ways of pruning.")
@click.option("--seeds", help="Seeds, parted by commas, each in a folder of its own (default: the recipes' seed).")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipes.")
def compression(
    folder: Path,
    recipes: tuple[Path, ...],
    seconds: float,
    only: tuple[str, ...],
    seeds: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Compress the models of RECIPES in every way, and measure what each gains and costs; all is kept in FOLDER.

    What is there already, whole runs of these recipes too, is not made again: FOLDER/NAME is a recipe's run folder, and
    its comparison/ has the pictures of its data. With seeds these are FOLDER/seed-N/NAME, and means are shown.
    """
    set_up_logging()
    quiet_libraries()
    loaded = [(path, load_recipe(path, Options(None, overrides, False, False, False, False))) for path in recipes]
    methods = [method for method in METHODS if not only or method.name in only]
    with Bars() as bars:
        if seeds is None:
            text = goals(all_of(folder, loaded, seconds, methods, bars))
        else:
            text = means([
                all_of(folder / f"seed-{seed}", _seeded(loaded, seed), seconds, methods, bars)
                for seed in seeds_of(seeds)
            ])  # fmt: skip
            write_text(folder / "means.md", text + "\n")
    click.echo(text)


Loaded = Sequence[tuple[Path, Recipe]]
"""Recipes and the files that they were read from."""


def _seeded(loaded: Loaded, seed: int) -> Loaded:
    """The recipes with another seed."""
    return [(path, recipe.model_copy(update={"seed": seed})) for path, recipe in loaded]


def all_of(folder: Path, loaded: Loaded, seconds: float, methods: Sequence[Method], bars: Progress) -> Report:
    """All recipes' models in one report, with what stood there of other ones; it and its table are in `folder`."""
    found = [compressed(path, recipe, folder / recipe.name, seconds, bars, methods) for path, recipe in loaded]
    before = [read_report(folder)] if (folder / REPORT_FILE).is_file() else []
    report = reduce(merge, [*before, *found])
    write_report(report, folder)
    write_text(folder / "goals.md", goals(report) + "\n")
    return report


if __name__ == "__main__":
    call(compression)
