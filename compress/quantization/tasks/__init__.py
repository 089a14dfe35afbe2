"""What quantizing does for each kind of task: one file a kind, and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
from numpy.typing import NDArray

from compress.quantization.forms import Forms
from compress.quantization.products import PLACES, TRANSLATION_PLACES, Places
from compress.quantization.tasks import classification, translation
from distill.data import Dataset
from distill.dataset import Split
from distill.metrics import Difference, Score
from distill.recipe import QuantizeRecipe
from distill.task import Task
from export.bundle import Bundle

Answers = NDArray[Any]
"""What a model answers to each row of a split, `(n,)`: label ids, or translations."""


@dataclass(frozen=True)
class Kind:
    """How models of one kind of task are made smaller and compared.

    `methods` are tried for a device, in this order, where the recipe names none; `most_alone`: so many rows, at most,
    are answered one by one to see what their batch does to them.
    """

    methods: Mapping[str, tuple[str, ...]]
    forms: Callable[[onnx.ModelProto, Bundle, Dataset, QuantizeRecipe, Path | None], Forms]
    answers: Callable[[Path, Split, bool], Answers]
    score: Callable[[Task, Split, Answers], Score]
    difference: Callable[[Task, Split, Answers, Answers], Difference]
    most_alone: int | None
    places: Places


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "classification": Kind(
            {"cpu": ("dynamic", "static"), "cuda": ("fp16",), "tensorrt": ("static",)},
            classification.forms,
            classification.answers,
            classification.score,
            classification.difference,
            None,
            PLACES,
        ),
        "translation": Kind(
            {"cpu": ("dynamic",), "cuda": ("fp16",)},
            translation.forms,
            translation.answers,
            translation.score,
            translation.difference,
            256,
            TRANSLATION_PLACES,
        ),
    }
)
