"""Smaller classifiers, compared by their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from bench.tasks.classification import texts_of
from compress.quantization import int8
from compress.quantization.forms import Forms, Maker
from compress.quantization.gate import limits
from compress.quantization.half import half
from compress.quantization.ranges import find_ranges
from compress.quantization.smooth import smooth
from compress.quantization.watch import Batch, Watched, products
from compress.quantization.weight_only import weight_only
from distill import metrics
from distill.data import Dataset
from distill.dataset import Split
from distill.errors import DataError
from distill.metrics import Difference, Score
from distill.recipe import QuantizeRecipe
from distill.task import Task
from export.bundle import Bundle
from export.runtime import Predictor, load_as
from export.texts import Text

BATCH = 32
INC = "inc-static"

Labels = NDArray[np.int64]


def forms(
    graph: onnx.ModelProto,
    bundle: Bundle,
    dataset: Dataset,
    settings: QuantizeRecipe,
    checkpoint: Path | None = None,
) -> Forms:
    """How to make each graph; those with int8 activations of the same smoothed one, if the recipe wants it smoothed.

    Ranges come from training rows one by one: padding would widen them. neural-compressor works on the `checkpoint`.

    Raises:
        DataError: nothing to calibrate on.
        RecipeError, MissingExtraError: neural-compressor is wanted and has no checkpoint, or is not installed.
    """
    predictor = load_as(Predictor, bundle.folder, threads=1)
    texts = calibration_texts(texts_of(dataset.splits["train"]), settings.calibration_examples)
    batches = [predictor.encode([text]) for text in texts]
    smoothed = cache(lambda: smooth(graph, batches) if settings.smooth else graph)
    watched = cache(lambda: Watched(smoothed(), products(smoothed()), batches))
    clipped = cache(lambda: None if settings.ranges == "minmax" else find_ranges(watched(), settings))
    static = int8.symmetric if settings.device == "tensorrt" else int8.static
    makers: dict[str, Maker] = {
        "fp16": lambda _: half(graph, bundle, texts),
        "dynamic": lambda names: int8.dynamic(smoothed(), names),
        "static": lambda names: static(smoothed(), batches, names, clipped()),
        "int8-weights": partial(weight_only, graph, 8),
        "int4-weights": partial(weight_only, graph, 4),
    }
    if INC in (settings.methods or ()):
        makers[INC] = _by_inc(predictor, dataset.splits["validation"], batches, settings, checkpoint)
    return Forms(makers, watched)


def _by_inc(
    predictor: Predictor, rows: Split, batches: Sequence[Batch], settings: QuantizeRecipe, checkpoint: Path | None
) -> Maker:
    """neural-compressor, which imports torch and is therefore imported late."""
    from compress.quantization import inc
    from distill.checkpoint import load_model

    found = inc.check(checkpoint)
    allowed, opset = limits(settings, predictor.task.kind).max_drop, predictor.bundle.opset
    return lambda _: inc.static(load_model(found), batches, _judge(predictor, rows), allowed, opset)


def _judge(predictor: Predictor, rows: Split) -> Callable[[Callable[[Batch], NDArray[np.float32]]], float]:
    """The metric on these rows of whatever makes logits of batches."""
    texts = texts_of(rows)
    batches = [predictor.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]

    def judge(answering: Callable[[Batch], NDArray[np.float32]]) -> float:
        found = np.concatenate([answering(batch).argmax(-1) for batch in batches])
        return score(predictor.task, rows, found).value

    return judge


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


def answers(folder: Path, split: Split, alone: bool) -> Labels:
    """A bundle's labels `(n,)`, through the runtime that will answer in production; `alone`: one text at a time."""
    logits = load_as(Predictor, folder).logits(texts_of(split), 1 if alone else BATCH)
    return np.asarray(logits.argmax(-1), np.int64)


def score(task: Task, split: Split, found: Labels) -> Score:
    """The task's metric of labels."""
    return metrics.score(task.metric, split.labels, found, task.num_labels)


def difference(task: Task, split: Split, a: Labels, b: Labels) -> Difference:
    """How much better `a` is than `b`."""
    return metrics.paired_difference(task.metric, split.labels, a, b, task.num_labels)
