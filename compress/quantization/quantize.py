"""fp32 bundle in, int8 or fp16 bundle out: each method is tried under the gate, the better one is kept."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.quantization import gate
from compress.quantization.folder import copy_parts, seal_quantized, write_parts
from compress.quantization.forms import SCANNED, Forms, check_names, counts, scan_form
from compress.quantization.gate import Verdict
from compress.quantization.products import Products, bytes_by_part, count_products
from compress.quantization.tasks import KINDS, Answers, Kind
from compress.quantization.watch import Watched
from distill.data import Dataset, Split
from distill.errors import DataError
from distill.files import new_folder
from distill.metrics import Difference, Score
from distill.recipe import QuantizeRecipe
from distill.sections import settings as section_settings
from export.bundle import Bundle, read_bundle

REJECTED = "rejected-"
SINCE = ("exclude", "smooth", "ranges", "percentile")
"""Keys whose defaults are what was done before there were such keys: with these, older results stand."""
NAMED = "named in quantize.exclude"
LOG = logging.getLogger("potstill")

Compare = Callable[[Answers, Answers], Difference]
"""How much better the first answers are than the second."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One int8 model, and how it compares with fp32 on the validation split.

    `left_float` says for each product that was left float why it was.
    """

    method: str
    folder: Path
    answers: Answers
    score: Score
    agreement: float
    verdict: Verdict
    products: Products
    bytes: Mapping[str, int]
    left_float: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What tells this one from the others."""
        count = len(self.left_float)
        return f"{self.method}, {count} product{'s' * (count > 1)} float" if count else self.method

    def beats(self, other: Trial, compare: Compare) -> bool:
        """Whether this one is to be kept rather than `other`, which the recipe names first.

        It is where its verdict is better, or where its metric is higher by more than these examples leave open.
        """
        if self.verdict.rank != other.verdict.rank:
            return self.verdict.rank > other.verdict.rank
        return compare(self.answers, other.answers).low > 0

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "validation": {"metric": self.score.metric, "value": self.score.value, "n": self.score.n},
            "agreement": self.agreement,
            "gate": self.verdict.to_json(),
        } | ({"left_float": list(self.left_float)} if self.left_float else {})


@dataclass(frozen=True)
class QuantizeResult:
    """The bundle that was kept, the method that made it, and everything that was tried."""

    bundle: Bundle
    method: str
    products: Products
    tried: tuple[Trial, ...]


@dataclass(frozen=True, eq=False)
class Trials:
    """What all trials of one fp32 bundle share: the rows they are judged on, and what fp32 answers to them."""

    bundle: Bundle
    kind: Kind
    split: Split
    reference: Answers
    allowed: gate.Limits
    device: str

    def compare(self, a: Answers, b: Answers) -> Difference:
        """How much better `a` is than `b`."""
        return self.kind.difference(self.bundle.task, self.split, a, b)


def resolved(recipe: QuantizeRecipe, kind: str) -> dict[str, Any]:
    """The section as JSON values, with what the kind of task puts in the place of what is left out."""
    allowed = asdict(gate.limits(recipe, kind))
    usual = QuantizeRecipe().model_dump(mode="json")
    given = section_settings(recipe, kind)
    found = {key: value for key, value in given.items() if key not in SINCE or value != usual[key]}
    return {**found, **allowed, "methods": list(methods(recipe, kind))}


def methods(recipe: QuantizeRecipe, kind: str) -> tuple[str, ...]:
    """What is tried, in order."""
    return recipe.methods or KINDS[kind].methods[recipe.device]


def reads_checkpoint(recipe: QuantizeRecipe) -> bool:
    """Whether a method works on the torch model, not on the fp32 bundle alone."""
    return "inc-static" in (recipe.methods or ())


def quantize(
    bundle: Bundle, target: Path, dataset: Dataset, settings: QuantizeRecipe, checkpoint: Path | None = None
) -> QuantizeResult:
    """Quantize an fp32 bundle to `target` for a device; the gate compares both on the validation split, on the CPU.

    The methods are tried in the recipe's order: a later one is kept where it is better by more than chance. Where all
    are rejected, they are tried again with the products float that int8 hurts most, until one passes
    (`quantize.exclude`). Ranges of static int8 come from training rows alone. When nothing passes, the best try is kept
    beside `target` as `rejected-NAME` and the fp32 bundle stays as it is. `checkpoint` is what the bundle was made
    from, for methods that work on it.

    Raises:
        RecipeError: the recipe names products that there are none of, or a method that needs the checkpoint.
        MissingExtraError: a method needs what is not installed.
        GateError: no method held the quality, or the split is too small to tell.
        DataError: there are no validation rows, or nothing to calibrate on; or the data are of another kind of task.
    """
    validation, kind = _rows(bundle, dataset), KINDS[bundle.task.kind]
    graph = onnx.load(bundle.model_path)
    before = bytes_by_part(graph.graph, kind.places)
    forms = kind.forms(graph, bundle, dataset, settings, checkpoint)
    allowed = gate.limits(settings, bundle.task.kind)
    trials = Trials(bundle, kind, validation, kind.answers(bundle.folder, validation, False), allowed, settings.device)
    with tempfile.TemporaryDirectory(prefix="potstill-") as work:
        tried = _tries(trials, forms, settings, Path(work))
        best = best_trial(tried, trials.compare)
        passed = best.verdict.state == "passed"
        place = target if passed else target.with_name(REJECTED + target.name)
        details = _details(bundle, best, tried, before)
        kept = _keep(best, place, bundle, details, settings.device, replace=not passed)
    gate.require(passed, [(trial.label, trial.verdict) for trial in tried], str(place))
    return QuantizeResult(kept, best.method, best.products, tuple(tried))


def _rows(bundle: Bundle, dataset: Dataset) -> Split:
    """The rows to judge by.

    Raises:
        DataError: there are none, or they are of another kind of task.
    """
    if dataset.task.kind != bundle.task.kind:
        raise DataError(f"the bundle is for {bundle.task.kind}, the recipe's data are for {dataset.task.kind}")
    validation = dataset.splits["validation"]
    if not len(validation):
        raise DataError("quantizing needs validation rows for its gate, and there are none")
    return validation


def _tries(trials: Trials, forms: Forms, settings: QuantizeRecipe, work: Path) -> list[Trial]:
    """Every method whole, or without the products that the recipe names; then, where all are rejected, with fewer."""
    left = dict.fromkeys(checked_names(settings, forms.watched), NAMED)
    order = methods(settings, trials.bundle.task.kind)
    tried = [_try(trials, forms, method, left, work) for method in order]
    if settings.exclude == "auto" and all(trial.verdict.state == "rejected" for trial in tried):
        tried += _with_fewer(trials, forms, settings, [method for method in order if method in SCANNED], work)
    return tried


def checked_names(settings: QuantizeRecipe, watched: Callable[[], Watched]) -> tuple[str, ...]:
    """The products that the recipe names to stay float.

    Raises:
        RecipeError: there are no such products.
    """
    named = () if settings.exclude == "auto" else settings.exclude
    if named:
        check_names(named, [product.name for product in watched().products])
    return named


def _with_fewer(
    trials: Trials, forms: Forms, settings: QuantizeRecipe, order: Sequence[str], work: Path
) -> list[Trial]:
    """Tries with the worst products left float, more and more of them, up to the first that passes."""
    tried: list[Trial] = []
    for method in order:
        worst = scan_form(forms.watched(), method, settings).rows
        for count in counts(len(worst)):
            trial = _try(trials, forms, method, {row.name: row.why for row in worst[:count]}, work)
            LOG.info("int8 %s: %s", trial.label, trial.verdict.state)
            tried.append(trial)
            if trial.verdict.state == "passed":
                return tried
    return tried


def best_trial(tried: Sequence[Trial], compare: Compare) -> Trial:
    """The trial that is kept."""
    best = tried[0]
    for trial in tried[1:]:
        best = trial if trial.beats(best, compare) else best
    return best


def _try(trials: Trials, forms: Forms, method: str, left_float: Mapping[str, str], work: Path) -> Trial:
    """Write one bundle into a folder in `work` and put it before the gate."""
    graph, folder = forms.makers[method](frozenset(left_float)), work / f"{method}-{len(left_float)}"
    folder.mkdir()
    write_parts(folder, trials.bundle, graph, method)
    seal_quantized(folder, trials.bundle, method, trials.bundle.details, trials.device)
    kind, split = trials.kind, trials.split
    found = kind.answers(folder, split, False)
    drop = trials.compare(trials.reference, found)
    return Trial(
        method,
        folder,
        found,
        kind.score(trials.bundle.task, split, found),
        float(np.mean(found == trials.reference)),
        gate.decide(drop, trials.allowed, _batch_flips(kind, folder, split, found)),
        count_products(graph.graph),
        bytes_by_part(graph.graph, kind.places),
        left_float,
    )


def _batch_flips(kind: Kind, folder: Path, split: Split, found: Answers) -> float:
    """The share of answers that are others when a row is answered alone, over all rows or some that are spread."""
    count = min(len(split), kind.most_alone or len(split))
    places = np.linspace(0, len(split) - 1, count).round().astype(int)
    pairs = None if split.pairs is None else tuple(split.pairs[place] for place in places)
    rows = replace(split, texts=tuple(split.texts[place] for place in places), pairs=pairs)
    return float(np.mean(found[places] != kind.answers(folder, rows, True)))


def _keep(trial: Trial, place: Path, bundle: Bundle, details: Mapping[str, Any], device: str, replace: bool) -> Bundle:
    """Give a trial its final name; a rejected one takes the place of the one before it."""
    if replace and place.exists():
        shutil.rmtree(place)
    with new_folder(place) as folder:
        copy_parts(trial.folder, folder, trial.method)
        seal_quantized(folder, bundle, trial.method, details, device)
    return read_bundle(place, verify=False)


def _details(bundle: Bundle, best: Trial, tried: Sequence[Trial], before: Mapping[str, int]) -> dict[str, Any]:
    """What the bundle says about its own making."""
    return {
        **bundle.details,
        "quantization": {
            "method": best.method,
            "products": str(best.products),
            "bytes": {"fp32": dict(before), "int8": dict(best.bytes)},
            "tried": {trial.label: trial.to_json() for trial in tried},
        }
        | ({"left_float": dict(best.left_float)} if best.left_float else {}),
    }
