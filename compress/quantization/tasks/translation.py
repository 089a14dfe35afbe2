"""Smaller translation models, compared by the BLEU or chrF of their translations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.quantization.forced import forced, teacher_forced
from compress.quantization.forms import Forms, Maker
from compress.quantization.half import half
from compress.quantization.operators import OUTPUT
from compress.quantization.shortlist import Pair, shortlist
from compress.quantization.translation_int8 import NOTHING, quantize_translation
from compress.quantization.watch import Watched, products
from compress.quantization.weight_only import weight_only
from distill import text_metrics
from distill.data import Dataset
from distill.dataset import Split
from distill.errors import DataError
from distill.metrics import Difference, Score
from distill.recipe import QuantizeRecipe
from distill.task import Task
from export.bundle import Bundle
from export.graphs.plan import Weights, read_plan
from export.runtime import Translator, load_as
from export.tasks.translation import BATCH_TOKENS

Texts = NDArray[Any]
TRIED = 64  # sentences that show whether fp16 overflows
WATCHED = 256  # pairs that a scan reads


def forms(
    graph: onnx.ModelProto, bundle: Bundle, dataset: Dataset, settings: QuantizeRecipe, _: Path | None = None
) -> Forms:
    """How to make each graph; int8 activations get their ranges from each input as it comes."""
    train = dataset.splits["train"]
    known = cache(lambda: _shortlist(bundle, train, settings.shortlist) if settings.shortlist else NOTHING)
    makers: Mapping[str, Maker] = {
        "dynamic": lambda names: quantize_translation(graph, known(), names),
        "int8-weights": partial(weight_only, graph, 8),
        "int4-weights": partial(weight_only, graph, 4),
        "fp16": lambda _: half(graph, bundle, train.texts[:TRIED]),
    }
    return Forms(makers, cache(lambda: _watched(graph, bundle, train)))


def _shortlist(bundle: Bundle, rows: Split, best: int) -> Weights:
    """The likeliest words of each piece, learned from these rows."""
    translator = load_as(Translator, bundle.folder)
    pairs = _pairs(translator, rows.texts, rows.targets or ())
    return shortlist(pairs, translator.limits.rows, best, translator.decoding)


def _pairs(translator: Translator, texts: Sequence[str], targets: Sequence[str]) -> list[Pair]:
    """The ids of both sides of each pair."""
    sides = (translator.reader.read(list(side)) for side in (texts, targets))
    return [(source.ids, target.ids) for source, target in zip(*sides, strict=True)]


def _watched(graph: onnx.ModelProto, bundle: Bundle, train: Split) -> Watched:
    """The model in one pass, on pairs that are spread over the training rows.

    Raises:
        DataError: there are none.
    """
    if not len(train):
        raise DataError("a scan reads training rows, and there are none")
    places = np.linspace(0, len(train) - 1, min(WATCHED, len(train))).round().astype(int)
    texts, targets = ([side[place] for place in places] for side in (train.texts, train.targets or ()))
    translator, flat = load_as(Translator, bundle.folder, threads=1), forced(graph)
    batches = teacher_forced(_pairs(translator, texts, targets), translator.decoding)
    return Watched(flat, products(flat, {read_plan(graph)[0].output_table: OUTPUT}), batches)


def answers(folder: Path, split: Split, alone: bool) -> Texts:
    """A bundle's translations `(n,)`, decoded as it is shipped; `alone`: one sentence at a time."""
    found = load_as(Translator, folder)(split.texts, batch_tokens=1 if alone else BATCH_TOKENS)
    return np.array([each.text for each in found], dtype=object)


def score(task: Task, split: Split, found: Texts) -> Score:
    """The task's metric of translations."""
    return text_metrics.score(task.metric, list(found), split.targets or (), task.target_language)


def difference(task: Task, split: Split, a: Texts, b: Texts) -> Difference:
    """How much better `a` is than `b`."""
    return text_metrics.paired_difference(task.metric, list(a), list(b), split.targets or (), task.target_language)
