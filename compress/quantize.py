"""fp32 bundle in, int8 bundle out: each method is tried under the gate, the better one is kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress import gate, int8
from compress.gate import Verdict
from compress.products import Products, bytes_by_part, count_products
from compress.smooth import smooth
from distill.data import Dataset, Split
from distill.environment import cpu_flags, cpu_model
from distill.errors import DataError
from distill.files import new_folder
from distill.metrics import Score, paired_difference, score
from distill.recipe import QuantizeRecipe
from distill.task import Task
from export.bundle import Bundle, read_bundle, seal
from export.manifest import CONFIG, TOKENIZER
from export.runtime import load_classifier
from export.texts import Text

MODEL_FILE = "onnx/model_int8.onnx"
BATCH = 32
REJECTED = "rejected-"

Labels = NDArray[np.int64]
Method = Callable[[], onnx.ModelProto]


@dataclass(frozen=True, eq=False)
class Trial:
    """One int8 model, and how it compares with fp32 on the validation split."""

    method: str
    folder: Path
    labels: Labels
    score: Score
    agreement: float
    verdict: Verdict
    products: Products
    bytes: Mapping[str, int]

    def beats(self, other: Trial, gold: Sequence[int], task: Task) -> bool:
        """Whether this one is to be kept rather than `other`, which the recipe names first.

        It is where its verdict is better, or where its metric is higher by more than these examples leave open.
        """
        if self.verdict.rank != other.verdict.rank:
            return self.verdict.rank > other.verdict.rank
        return paired_difference(task.metric, gold, self.labels, other.labels, task.num_labels).low > 0

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "validation": {"metric": self.score.metric, "value": self.score.value, "n": self.score.n},
            "agreement": self.agreement,
            "gate": self.verdict.to_json(),
        }


@dataclass(frozen=True)
class QuantizeResult:
    """The bundle that was kept, the method that made it, and everything that was tried."""

    bundle: Bundle
    method: str
    products: Products
    tried: tuple[Trial, ...]


def quantize(bundle: Bundle, target: Path, dataset: Dataset, settings: QuantizeRecipe) -> QuantizeResult:
    """Quantize an fp32 bundle to `target`; the gate compares both on the validation split.

    The methods are tried in the recipe's order: a later one is kept where it is better by more than chance.
    Ranges of static int8 come from training rows alone. When nothing passes, the best try is kept beside `target` as
    `rejected-NAME` and the fp32 bundle stays as it is.

    Raises:
        GateError: no method held the quality, or the split is too small to tell.
        DataError: there are no validation rows, or nothing to calibrate on.
    """
    validation = dataset.splits["validation"]
    if not len(validation):
        raise DataError("quantizing needs validation rows for its gate, and there are none")
    graph = onnx.load(bundle.model_path)
    before = bytes_by_part(graph.graph)
    with tempfile.TemporaryDirectory(prefix="potstill-") as work:
        compare = partial(_try, bundle, _labels(bundle.folder, texts_of(validation), BATCH), validation, settings)
        tried = [
            compare(method, make(), Path(work) / method)
            for method, make in _methods(graph, bundle, dataset, settings).items()
        ]
        best = best_trial(tried, validation.labels, bundle.task)
        passed = best.verdict.state == "passed"
        place = target if passed else target.with_name(REJECTED + target.name)
        kept = _keep(best, place, bundle, _details(bundle, best, tried, before, settings), replace=not passed)
    gate.require(passed, [(trial.method, trial.verdict) for trial in tried], str(place))
    return QuantizeResult(kept, best.method, best.products, tuple(tried))


def best_trial(tried: Sequence[Trial], gold: Sequence[int], task: Task) -> Trial:
    """The trial that is kept."""
    best = tried[0]
    for trial in tried[1:]:
        best = trial if trial.beats(best, gold, task) else best
    return best


def texts_of(split: Split) -> list[Text]:
    """A split's texts as the runtime takes them: strings, or pairs."""
    return list(zip(split.texts, split.pairs, strict=True)) if split.pairs else list(split.texts)


def _methods(
    graph: onnx.ModelProto, bundle: Bundle, dataset: Dataset, settings: QuantizeRecipe
) -> Mapping[str, Method]:
    """How to make each int8 graph that is to be tried, all of the same smoothed one.

    Ranges come from training rows one by one: padding would widen them.
    """
    predictor = load_classifier(bundle.folder, threads=1)
    texts = calibration_texts(texts_of(dataset.splits["train"]), settings.calibration_examples)
    batches = [predictor.encode([text]) for text in texts]
    smoothed = smooth(graph, batches)
    makers: dict[str, Method] = {
        "dynamic": partial(int8.dynamic, smoothed),
        "static": partial(int8.static, smoothed, batches),
    }
    return MappingProxyType({method: makers[method] for method in settings.methods})


def calibration_texts(texts: Sequence[Text], count: int) -> list[Text]:
    """`count` of the texts, evenly spread from the shortest to the longest.

    Raises:
        DataError: there are none, or all are the same.
    """
    by_length = sorted(set(texts), key=lambda text: (len(text) if isinstance(text, str) else sum(map(len, text)), text))
    if len(by_length) < 2:
        raise DataError(
            f"int8 takes its ranges from training texts: expected at least 2 different ones, "
            f"found {len(by_length)}; give more rows, or quantize: null"
        )
    places = np.linspace(0, len(by_length) - 1, min(count, len(by_length))).round().astype(int)
    return [by_length[place] for place in places]


def _labels(folder: Path, texts: Sequence[Text], batch_size: int) -> Labels:
    """What a bundle answers, through the runtime that will answer in production."""
    return np.asarray(load_classifier(folder).logits(texts, batch_size).argmax(-1), np.int64)


def _try(
    bundle: Bundle, reference: Labels, split: Split, settings: QuantizeRecipe,
    method: str, graph: onnx.ModelProto, folder: Path,
) -> Trial:  # fmt: skip
    """Write one int8 bundle to `folder` and put it before the gate."""
    folder.mkdir()
    write_parts(folder, bundle, graph)
    seal_int8(folder, bundle, method, {})
    found, alone = (_labels(folder, texts_of(split), size) for size in (BATCH, 1))
    metric, count = bundle.task.metric, bundle.task.num_labels
    verdict = gate.decide(
        split.labels, reference, found, settings,
        metric=metric, num_labels=count, batch_flips=float(np.mean(found != alone)),
    )  # fmt: skip
    return Trial(
        method,
        folder,
        found,
        score(metric, split.labels, found, count),
        float(np.mean(found == reference)),
        verdict,
        count_products(graph.graph),
        bytes_by_part(graph.graph),
    )


def write_parts(folder: Path, bundle: Bundle, graph: onnx.ModelProto) -> None:
    """Everything of an int8 bundle but its card and manifest; the fp32 graph stays where it is."""
    (folder / MODEL_FILE).parent.mkdir()
    (folder / MODEL_FILE).write_bytes(graph.SerializeToString(deterministic=True))
    for name in (TOKENIZER, CONFIG):
        shutil.copyfile(bundle.folder / name, folder / name)


def seal_int8(folder: Path, bundle: Bundle, method: str, details: Mapping[str, Any]) -> Bundle:
    """Make the folder an int8 bundle."""
    return seal(
        folder,
        task=bundle.task,
        precision=f"int8-{method}",
        model_file=MODEL_FILE,
        opset=bundle.opset,
        inputs=bundle.inputs,
        outputs=bundle.outputs,
        cpu={"model": cpu_model(), "flags": cpu_flags()},
        details={**details, "reduce_range": int8.REDUCE_RANGE},
    )


def _keep(trial: Trial, place: Path, bundle: Bundle, details: Mapping[str, Any], replace: bool) -> Bundle:
    """Give a trial its final name; a rejected one takes the place of the one before it."""
    if replace and place.exists():
        shutil.rmtree(place)
    with new_folder(place) as folder:
        (folder / MODEL_FILE).parent.mkdir()
        for name in (MODEL_FILE, TOKENIZER, CONFIG):
            shutil.copyfile(trial.folder / name, folder / name)
        seal_int8(folder, bundle, trial.method, details)
    return read_bundle(place, verify=False)


def _details(
    bundle: Bundle, best: Trial, tried: Sequence[Trial], before: Mapping[str, int], settings: QuantizeRecipe
) -> dict[str, Any]:
    """What the bundle says about its own making."""
    return {
        **bundle.details,
        "quantization": {
            "method": best.method,
            "products": str(best.products),
            "bytes": {"fp32": dict(before), "int8": dict(best.bytes)},
            "tried": {trial.method: trial.to_json() for trial in tried},
        },
    }
