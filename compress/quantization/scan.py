"""What int8 would do to each product of an fp32 bundle, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from compress.quantization.forms import SCANNED, counts, scan_form
from compress.quantization.quantize import NAMED, checked_names, methods
from compress.quantization.sensitivity import Scan
from compress.quantization.tasks import KINDS
from distill.data import read
from distill.errors import BundleError, DataError, RecipeError
from distill.recipe import QuantizeRecipe, Recipe
from export.bundle import read_bundle

HEAD = ("product", "shape", "error", "input", "weight", "form")
LEGEND = """\
error: power of the noise over that of the product, where {method} int8 rounds input and weight; on {texts} texts
input, weight: largest input channel over the median one, and the same of the weight's rows: all share their scale
"""


def scan_bundle(source: Path, recipe: Recipe, base: Path, method: str | None = None) -> Scan:
    """Scan an fp32 bundle on the training rows of a recipe, whose paths start at `base`.

    Without a `method` it is the first of the recipe's that a scan knows.

    Raises:
        BundleError: the bundle is not fp32.
        DataError: the recipe's data are of another kind of task.
        RecipeError: there is no method to scan, or `quantize.exclude` names what is no product.
    """
    bundle, settings = read_bundle(source), recipe.quantize or QuantizeRecipe()
    if bundle.precision != "fp32":
        raise BundleError(f"{source} is {bundle.precision} already: a scan needs the fp32 bundle it was made from")
    dataset = read(recipe.data, recipe.task, recipe.seed, base)
    if dataset.task.kind != bundle.task.kind:
        raise DataError(f"the bundle is for {bundle.task.kind}, the recipe's data are for {dataset.task.kind}")
    kind = bundle.task.kind
    chosen = method or next((name for name in methods(settings, kind) if name in SCANNED), None)
    if chosen is None or (chosen == "static" and kind == "translation"):
        raise RecipeError(
            f"there is no {chosen or 'int8'} to scan for {kind} on {settings.device}; take --method dynamic"
        )
    forms = KINDS[kind].forms(onnx.load(bundle.model_path), bundle, dataset, settings, None)
    checked_names(settings, forms.watched)
    return scan_form(forms.watched(), chosen, settings)


def forms_of(scan: Scan, settings: QuantizeRecipe) -> dict[str, str]:
    """For each product int8 or float, and why: the recipe names it, or it would be tried where the gate rejects."""
    if settings.exclude != "auto":
        return {row.name: f"float: {NAMED}" if row.name in settings.exclude else "int8" for row in scan.rows}
    tries = counts(len(scan.rows))
    found = {}
    for place, row in enumerate(scan.rows):
        needed = next((count for count in tries if count > place), None)
        found[row.name] = "int8" if needed is None else f"int8; float in the try with {needed}, if the gate rejects all"
    return found


def in_words(scan: Scan, settings: QuantizeRecipe) -> str:
    """The table, the worst product first."""
    forms = forms_of(scan, settings)
    rows = [
        (
            row.name, "x".join(map(str, row.shape)), f"{row.error:.3%}", f"{row.outlier:.3g}",
            f"{row.weight_outlier:.3g}", forms[row.name],
        )
        for row in scan.rows
    ]  # fmt: skip
    return LEGEND.format(method=scan.method, texts=scan.texts) + "\n" + "\n".join(_aligned([HEAD, *rows]))


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows as lines; names to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, len(HEAD) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
