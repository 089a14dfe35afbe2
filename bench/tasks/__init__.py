"""What is measured of each kind of task: one file a kind, and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from bench.backends import Backend
from bench.candidates import Candidate
from bench.latency import Cell, Place, Work
from bench.tasks import classification, translation
from distill.data import Dataset, Split
from distill.metrics import Score
from distill.recipe import BenchRecipe
from distill.rows import Latency, Parity, Quality
from distill.task import Task
from export.texts import Text

Answers = Any
"""What one model answered: each kind has its own form of it."""


@dataclass(frozen=True)
class Kind:
    """How models of one kind of task are judged and timed.

    `lengths` are those of fixed ids where the recipe names none; `timing` says what a run is; `finished` completes a
    row after its work was done.
    """

    lengths: tuple[int, ...]
    timing: str
    texts_of: Callable[[Split], list[Text]]
    answer: Callable[[Candidate, Task, Sequence[Text], int, int], Answers]
    scores: Callable[[Answers, Split, Task, int], list[Score]]
    quality_rows: Callable[[Sequence[Answers], Dataset, str, int], list[Quality]]
    parity: Callable[[Answers, Answers], Parity]
    notes: Callable[[Sequence[Quality], Dataset, str], list[str]]
    cells: Callable[[BenchRecipe, Place, Sequence[int], Sequence[Text], Candidate, int], list[Cell]]
    work: Callable[[Candidate, Backend, Cell, Sequence[Text], int], Work]
    finished: Callable[[Latency, Work, NDArray[Any]], Latency]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "classification": Kind(
            classification.LENGTHS,
            classification.TIMING,
            classification.texts_of,
            classification.answer,
            classification.scores,
            classification.quality_rows,
            classification.parity,
            classification.notes,
            classification.cells,
            classification.work,
            classification.finished,
        ),
        "translation": Kind(
            translation.LENGTHS,
            translation.TIMING,
            translation.texts_of,
            translation.answer,
            translation.scores,
            translation.quality_rows,
            translation.parity,
            translation.notes,
            translation.cells,
            translation.work,
            translation.finished,
        ),
    }
)
