"""Fine-tuning the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from distill.batches import encode
from distill.data import Dataset
from distill.losses import hard_loss
from distill.progress import Report, silent
from distill.recipe import TrainingRecipe
from distill.training import Course, train


def teach(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    recipe: TrainingRecipe,
    work: Path,
    seed: int,
    report: Report = silent,
) -> Mapping[str, Any]:
    """Fine-tune `model` in place on the training split by cross-entropy; its best weights on validation stay.

    `work` holds the checkpoints from which a run that was cut off goes on. Returns what happened.

    Raises:
        InterruptedRunError: asked to stop.
        RunError: the loss is not finite, or disk or memory are full.
    """
    course = Course(
        "teach",
        encode(tokenizer, dataset.splits["train"], dataset.task),
        encode(tokenizer, dataset.splits["validation"], dataset.task),
        partial(_loss, smoothing=recipe.label_smoothing_factor),
        dataset.task,
        seed,
    )
    return train(model, tokenizer, course, recipe, work, report)


def _loss(logits: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None, smoothing: float) -> torch.Tensor:
    """The labels alone."""
    return hard_loss(logits, labels, smoothing)
