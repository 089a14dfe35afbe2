"""Smaller translation models, compared by the BLEU or chrF of their translations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.half import half
from compress.shortlist import shortlist
from compress.translation_int8 import quantize_translation
from compress.weight_only import weight_only
from distill import text_metrics
from distill.data import Dataset
from distill.dataset import Split
from distill.metrics import Difference, Score
from distill.recipe import QuantizeRecipe
from distill.task import Task
from export.bundle import Bundle
from export.runtime import Translator, load_as
from export.tasks.translation import BATCH_TOKENS

Texts = NDArray[Any]
TRIED = 64  # sentences that show whether fp16 overflows


def makers(
    graph: onnx.ModelProto, bundle: Bundle, dataset: Dataset, settings: QuantizeRecipe
) -> Mapping[str, Callable[[], onnx.ModelProto]]:
    """How to make each graph; int8 activations get their ranges from each input as it comes."""
    if not settings.shortlist:
        return {
            "dynamic": partial(quantize_translation, graph),
            "int8-weights": partial(weight_only, graph, 8),
            "int4-weights": partial(weight_only, graph, 4),
            "fp16": partial(half, graph, bundle, dataset.splits["train"].texts[:TRIED]),
        }
    translator, train = load_as(Translator, bundle.folder), dataset.splits["train"]
    sides = (translator.reader.read(list(side)) for side in (train.texts, train.targets or ()))
    pairs = [(source.ids, target.ids) for source, target in zip(*sides, strict=True)]
    known = shortlist(pairs, translator.limits.rows, settings.shortlist, translator.decoding)
    return {"dynamic": partial(quantize_translation, graph, known)}


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
