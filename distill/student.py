"""Distilling a student from stored signals: the teacher itself is not needed any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from distill.batches import Example, encode
from distill.data import Dataset
from distill.losses import distillation_loss, hard_loss
from distill.progress import Report, silent
from distill.recipe import DistillationRecipe
from distill.rounding import rounded
from distill.signals import Signals
from distill.training import Course, train


def distil(
    student: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    signals: Signals,
    recipe: DistillationRecipe,
    work: Path,
    seed: int,
    stage: str = "student",
    report: Report = silent,
    watchers: Sequence[TrainerCallback] = (),
) -> Mapping[str, Any]:
    """Train `student` in place towards the teacher's logits and the labels; its best weights on validation stay.

    Rows of the unlabelled split, if there is one, count with the teacher's part of the loss alone. With
    `recipe.quantization_aware` the student learns, and is judged, with int8's rounding. Without `recipe.training`
    nothing is learned.

    Raises:
        DataError: the signals are of other examples or labels.
        InterruptedRunError: asked to stop.
        RunError: the loss is not finite, or disk or memory are full.
    """
    if recipe.training is None:
        return {}
    course = Course(
        stage,
        _rows(tokenizer, dataset, signals),
        encode(tokenizer, dataset.splits["validation"], dataset.task),
        partial(_loss, temperature=recipe.temperature, alpha=recipe.alpha),
        dataset.task,
        seed,
        watchers=watchers,
    )
    with rounded(student) if recipe.quantization_aware else nullcontext():
        return train(student, tokenizer, course, recipe.training, work, report)


def _rows(tokenizer: PreTrainedTokenizerBase, dataset: Dataset, signals: Signals) -> list[Example]:
    """Training rows, then unlabelled ones, each with the teacher's logits."""
    splits = [dataset.splits[name] for name in ("train", "unlabelled") if name in dataset.splits]
    return [
        row
        for split in splits
        for row in encode(tokenizer, split, dataset.task, signals.of(split.ids, dataset.task.labels))
    ]


def _loss(
    logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None, temperature: float, alpha: float
) -> torch.Tensor:
    """The distillation loss; validation rows have no signals and count by their labels."""
    if teacher is None:
        return hard_loss(logits, labels)
    return distillation_loss(logits, teacher, labels, temperature, alpha)
