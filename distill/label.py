"""Asking the teacher once: its logits for every example a student will learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerBase

from distill.data import Dataset, Split
from distill.layers import model_config
from distill.progress import Report, silent
from distill.signals import Signals
from distill.task import Task

ASKED = ("train", "unlabelled")


def label(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    teacher: str,
    batch_size: int = 64,
    report: Report = silent,
) -> Signals:
    """The teacher's logits on the training and unlabelled splits, by example id; `teacher` is its sha256."""
    names = tuple(model_config(model).id2label[i] for i in range(model_config(model).num_labels))
    ids: list[str] = []
    found: list[NDArray[np.float32]] = []
    for split in (dataset.splits[name] for name in ASKED if name in dataset.splits):
        ids += split.ids
        found.append(logits(model, tokenizer, split, dataset.task, batch_size, report))
    return Signals(tuple(ids), np.concatenate(found), names, teacher)


def logits(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    split: Split,
    task: Task,
    batch_size: int = 64,
    report: Report = silent,
) -> NDArray[np.float32]:
    """A torch model's logits `(examples, labels)` in the split's order.

    Texts of similar length are answered together, so that little is padding.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    answers = np.empty((len(split), task.num_labels), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for rows in _batches(split, batch_size):
            batch = _encode(tokenizer, split, rows, task.max_length).to(device)
            answers[rows] = model(**batch).logits.float().cpu().numpy()
            done += len(rows)
            report("label", done, len(split))
    return answers


def _batches(split: Split, size: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length."""
    pairs = split.pairs or ("",) * len(split)
    order = sorted(range(len(split)), key=lambda row: len(split.texts[row]) + len(pairs[row]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _encode(tokenizer: PreTrainedTokenizerBase, split: Split, rows: Sequence[int], max_length: int) -> BatchEncoding:
    """One padded batch."""
    pairs = [split.pairs[row] for row in rows] if split.pairs is not None else None
    texts = [split.texts[row] for row in rows]
    return tokenizer(texts, pairs, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
