"""What a classifier answers: one label a text, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.task import Task


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest label, its probability, and whether the text was too long to be read to its end."""

    label: str
    score: float
    truncated: bool


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the labels: `(texts, labels)` in and out."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), np.float32)


def predictions(task: Task, logits: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
    """One prediction for each row of `logits` `(texts, labels)`."""
    if not len(logits):
        return []
    scores = probabilities(logits).tolist()
    best = logits.argmax(axis=-1).tolist()
    return [
        Prediction(task.labels[index], row[index], cut) for row, index, cut in zip(scores, best, truncated, strict=True)
    ]
