"""The compressing steps on folders of one's own, outside a run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.measure import measure_folders
from compress import steps
from compress.quantization.quantize import quantize
from distill.command import Options, load_recipe
from distill.data import Dataset, read
from distill.errors import RecipeError
from distill.recipe import QuantizeRecipe, Recipe
from distill.steps import Manifest, Run
from export.bundle import Bundle, read_bundle
from export.graph import export
from export.manifest import MANIFEST


def quantize_run(opened: Run) -> Manifest:
    """Quantize a recipe's run.

    Raises:
        RecipeError: the recipe says not to.
        GateError: no method passes.
    """
    if opened.recipe.quantize is None:
        raise RecipeError("the recipe says `quantize: null`; for example --set quantize.max_drop=0.01")
    return steps.run_quantize(opened, opened.recipe.quantize)


def export_folder(source: Path, recipe: Path | None, chosen: Options) -> Bundle:
    """Export a checkpoint's folder to `-o`."""
    loaded, dataset = _data(recipe, chosen)
    return _export(source, _target(chosen), loaded, dataset)


def quantize_folder(source: Path, recipe: Path | None, chosen: Options) -> Bundle:
    """Quantize a bundle, or a checkpoint that is exported first, to `-o`."""
    loaded, dataset = _data(recipe, chosen)
    target, settings = _target(chosen), loaded.quantize or QuantizeRecipe()
    if (source / MANIFEST).exists():
        return quantize(read_bundle(source), target, dataset, settings).bundle
    with tempfile.TemporaryDirectory() as scratch:
        fp32 = _export(source, Path(scratch) / "fp32", loaded, dataset)
        return quantize(fp32, target, dataset, settings, source).bundle


def bench_folders(sources: Sequence[Path], recipe: Path | None, chosen: Options) -> Path:
    """Measure folders side by side; the report's folder comes back."""
    loaded, dataset = _data(recipe, chosen)
    target = _target(chosen)
    measure_folders(loaded.name, sources, loaded.bench, target, dataset, seed=loaded.seed)
    return target


def _export(source: Path, target: Path, recipe: Recipe, dataset: Dataset) -> Bundle:
    """One fp32 bundle, compared with torch on the test split."""
    settings = recipe.export
    return export(source, target, opset=settings.opset, atol=settings.atol, examples=dataset.splits["test"])


def _data(recipe: Path | None, chosen: Options) -> tuple[Recipe, Dataset]:
    """The recipe and the data it names.

    Raises:
        RecipeError: no recipe was given.
    """
    if recipe is None:
        raise RecipeError("give --recipe RECIPE: parity, calibration and the gate need the data that it names")
    loaded = load_recipe(recipe, chosen)
    return loaded, read(loaded.data, loaded.task, loaded.seed, recipe.parent)


def _target(chosen: Options) -> Path:
    """Where to write.

    Raises:
        RecipeError: nowhere, or somewhere that is taken.
    """
    if chosen.output is None:
        raise RecipeError("give -o FOLDER for the result")
    if chosen.output.exists():
        raise RecipeError(f"{chosen.output} exists already; choose another -o")
    return chosen.output
