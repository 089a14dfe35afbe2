"""What each kind of task does in the learning steps: one file a kind, and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from distill.batches import Batch, RowLoss
from distill.opened import Manifest, Run
from distill.recipe import DistillationRecipe, Recipe
from distill.tasks import classification, translation

Settings = Callable[[Recipe], Mapping[str, Any]]
Make = Callable[[Run, Path], Manifest]


class Recover(Protocol):
    """Distils a model again after, or while, it is made smaller."""

    def __call__(
        self,
        opened: Run,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        recipe: DistillationRecipe,
        stage: str,
        watchers: Sequence[TrainerCallback] = (),
    ) -> Manifest:
        """Train `model` in place; `watchers` follow the training."""


@dataclass(frozen=True)
class Kind:
    """How teachers, signals and students of one kind of task are made, and what in the recipe they depend on.

    `load` reads such a model and its tokenizer, `asked_batches` gives so many of the rows that it learns from, and
    `row_loss` what it minimises, a row; `recover` distils again after it was made smaller. `together`: every process
    asks the teacher its part, and what is answered is kept when the step is cut off.
    """

    teacher_settings: Settings
    make_teacher: Make
    signal_settings: Settings
    make_signals: Make
    before_student: Callable[[Recipe], Mapping[str, str]]
    student_settings: Settings
    make_student: Make
    load: Callable[[Path], tuple[nn.Module, PreTrainedTokenizerBase]]
    asked_batches: Callable[[Run, nn.Module, PreTrainedTokenizerBase, DistillationRecipe, int], list[Batch]]
    row_loss: Callable[[DistillationRecipe], RowLoss]
    recover: Recover
    together: bool


KINDS: Mapping[str, Kind] = {
    "classification": Kind(
        classification.teacher_settings,
        classification.make_teacher,
        classification.signal_settings,
        classification.make_signals,
        classification.before_student,
        classification.student_settings,
        classification.make_student,
        classification.load,
        classification.asked_batches,
        classification.row_loss,
        classification.recover,
        together=False,
    ),
    "translation": Kind(
        translation.teacher_settings,
        translation.make_teacher,
        translation.signal_settings,
        translation.make_signals,
        translation.before_student,
        translation.student_settings,
        translation.make_student,
        translation.load,
        translation.asked_batches,
        translation.row_loss,
        translation.recover,
        together=True,
    ),
}
