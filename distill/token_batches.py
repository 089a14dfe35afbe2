"""Pairs of sentences in batches: encoded, gathered by length up to a number of tokens, padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

from distill.batches import Example
from distill.seq2seq import IGNORED, shifted
from distill.task import Task

STEP = 2
"""Lengths are gathered in steps of this many tokens: rows of one step change places from epoch to epoch."""


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], targets: Sequence[str], task: Task
) -> list[Example]:
    """Source ids, target ids (the labels) and number of each pair, cut at the task's lengths."""
    if not texts:  # the tokenizer does not take an empty list
        return []
    most = task.max_target_length or task.max_length
    sources = tokenizer(list(texts), truncation=True, max_length=task.max_length)["input_ids"]
    labels = tokenizer(text_target=list(targets), truncation=True, max_length=most)["input_ids"]
    pairs = enumerate(zip(sources, labels, strict=True))
    return [{"input_ids": source, "labels": label, "row": row} for row, (source, label) in pairs]


def lengths(rows: Sequence[Example]) -> NDArray[np.int64]:
    """Tokens of source and target `(rows, 2)`."""
    found = [(len(row["input_ids"]), len(row["labels"])) for row in rows]
    return np.asarray(found, dtype=np.int64).reshape(-1, 2)


class ByTokens(Sampler[list[int]]):
    """Batches of pairs of similar lengths, as large as a number of tokens allows, in an order by seed and epoch alone.

    A batch's rows times its longest source plus its longest target stay within the budget, but for a batch of one
    row. Every epoch has as many batches and the same lengths in them, so that its end is known beforehand; which rows
    of these lengths meet, and when, changes from epoch to epoch.
    """

    def __init__(self, sizes: NDArray[np.int64], budget: int, seed: int) -> None:
        """Order rows of these `sizes` `(rows, 2)` in tokens."""
        self.sizes = -(-sizes // STEP) * STEP
        self.seed = seed
        self.epoch = 0
        source, target = self.sizes.T
        # Sources run up and down in turn, so that neighbours are alike where the target's length changes.
        turned = np.where(target // STEP % 2, -source, source)
        self.cuts = _cuts(self.sizes[np.lexsort((turned, target))], budget)
        self.keys = (turned, target)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.cuts)

    def __iter__(self) -> Iterator[list[int]]:
        """The row numbers of each batch of one epoch."""
        choose = np.random.default_rng([self.seed, self.epoch])
        order = np.lexsort((choose.random(len(self.sizes)), *self.keys))
        for batch in choose.permutation(len(self.cuts)):
            start, end = self.cuts[batch]
            yield [int(row) for row in order[start:end]]


def _cuts(sizes: NDArray[np.int64], budget: int) -> list[tuple[int, int]]:
    """Where batches begin and end among sorted rows."""
    cuts: list[tuple[int, int]] = []
    start, longest = 0, np.zeros(2, dtype=np.int64)
    for row, size in enumerate(sizes):
        longest = np.maximum(longest, size)
        if row > start and (row + 1 - start) * longest.sum() > budget:
            cuts.append((start, row))
            start, longest = row, size
    return [*cuts, (start, len(sizes))] if len(sizes) else []


def collate_pairs(pad: int, model: nn.Module, rows: Sequence[Example]) -> dict[str, Any]:
    """One batch: ids and mask `(batch, source)`, what the decoder reads and the labels `(batch, target)`.

    Sources are padded with `pad`, labels with -100.
    """
    labels = _padded([row["labels"] for row in rows], IGNORED)
    sources = [row["input_ids"] for row in rows]
    return {
        "input_ids": _padded(sources, pad),
        "attention_mask": _padded([[1] * len(ids) for ids in sources], 0),
        "decoder_input_ids": shifted(model, labels),
        "labels": labels,
        "row": torch.tensor([row["row"] for row in rows]),
        "use_cache": False,
    }


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of ids as one table `(rows, longest)`."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
