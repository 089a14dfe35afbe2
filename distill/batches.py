"""Rows in batches: encoded, put in order, padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase
from transformers.trainer_pt_utils import get_length_grouped_indices

from distill.data import Split
from distill.task import Task

Example = dict[str, Any]
Batch = Mapping[str, Any]
RowLoss = Callable[[nn.Module, Batch], torch.Tensor]
"""The loss of each row `(batch,)` of a model on a batch."""

ASKED_AT_ONCE = 16
"""Rows a batch where a model is looked at and not trained."""


def encode(
    tokenizer: PreTrainedTokenizerBase, split: Split, task: Task, signals: np.ndarray | None = None
) -> list[Example]:
    """Token ids, labels (-100 where there is none) and, if given, the teacher's logits, a dict a row."""
    pairs = list(split.pairs) if split.pairs is not None else None
    encoded = tokenizer(list(split.texts), pairs, truncation=True, max_length=task.max_length)
    labels = split.labels or [-100] * len(split.texts)
    rows = [{key: encoded[key][i] for key in encoded} | {"labels": labels[i], "row": i} for i in range(len(labels))]
    if signals is not None:
        rows = [row | {"teacher_logits": signals[i]} for i, row in enumerate(rows)]
    return rows


def collate(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]) -> dict[str, torch.Tensor]:
    """One batch, padded to its longest row."""
    extra = ("labels", "row", "teacher_logits")
    inputs = [{key: value for key, value in row.items() if key not in extra} for row in rows]
    columns = {key: torch.as_tensor(np.asarray([row[key] for row in rows])) for key in extra if key in rows[0]}
    return {**tokenizer.pad(inputs, return_tensors="pt"), **columns}


def drawn(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    """At most `count` rows, drawn by a seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [rows[number] for number in order[:count]]


def chunks(rows: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    """The rows in order, `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class ByLength(Sampler[int]):
    """Rows of similar length together, in an order that follows from seed and epoch alone.

    transformers' own sampler draws from torch's global random numbers: an epoch that is entered again in its middle
    would have another order than the first time, and two processes could disagree about it.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Order rows of these lengths in tokens for batches of `batch_size`."""
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        """All rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Row numbers of one epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
