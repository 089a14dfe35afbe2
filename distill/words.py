"""What the teacher says at each word of a translation: its likeliest pieces, and the KL divergence from them.

A distribution over thousands of pieces is kept as k + 1 numbers: the log-probabilities of the k likeliest pieces and
that of "any other". The divergence is taken over these k + 1 outcomes. It is 0 when the student gives each of the k
pieces, and all others together, what the teacher gives them, and never more than the divergence over all pieces (the
data-processing inequality): no mass is dropped and none is made up. How the mass of "any other" is spread is not
learned from the teacher. What other pieces weigh after softening does not follow from what they weigh before, so the
temperature is applied before the k pieces are taken, and is part of the signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from distill.number_types import has_bf16
from distill.task import Task
from distill.token_batches import collate_pairs, encode_pairs, lengths
from distill.translate import by_length

SMALLEST = -60000.0
"""Logarithms below this do not fit into 16 bits."""


@dataclass(frozen=True)
class Words:
    """A teacher's softened distributions at the words of translations, one translation after the other.

    `pieces` are ids (uint16, or int32 for large vocabularies) and `logs` their log-probabilities (float16), both
    `(words, k)`, the likeliest first; `others` is the log-probability of all other pieces, float16 `(words,)`;
    translation i has the words from `starts[i]` to `starts[i + 1]`.
    """

    pieces: NDArray[np.generic]
    logs: NDArray[np.float16]
    others: NDArray[np.float16]
    starts: NDArray[np.int64]
    temperature: float

    def of(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pieces `(words, k)` of one translation, and log-probabilities `(words, k + 1)`, "any other" last."""
        part = slice(self.starts[row], self.starts[row + 1])
        logs = np.concatenate([self.logs[part], self.others[part, None]], axis=1).astype(np.float32)
        return self.pieces[part].astype(np.int64), logs - np.logaddexp.reduce(logs, axis=1, keepdims=True)


def joined(parts: Sequence[Words]) -> Words:
    """The words of several sets of translations, in order."""
    ends = np.cumsum([0, *(part.starts[-1] for part in parts)])
    starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
    return Words(
        np.concatenate([part.pieces for part in parts]),
        np.concatenate([part.logs for part in parts]),
        np.concatenate([part.others for part in parts]),
        np.concatenate([*starts, ends[-1:]]).astype(np.int64),
        parts[0].temperature,
    )


def renumbered(words: Words, ids: Sequence[int], absent: int) -> Words:
    """The words over a smaller vocabulary, whose pieces had these `ids`; what is gone counts as "any other".

    Its place is filled with the piece `absent`, at no probability: one that never stands in a translation.
    """
    number = {old: new for new, old in enumerate(ids)}
    new = np.array([number.get(old, -1) for old in range(1 + max([*ids, int(words.pieces.max(initial=0))]))])
    pieces = new[words.pieces.astype(np.int64)]
    gone = pieces < 0
    lost = np.where(gone, words.logs.astype(np.float32), -np.inf)
    others = np.logaddexp(words.others.astype(np.float32), np.logaddexp.reduce(lost, axis=1, initial=-np.inf))
    return replace(
        words,
        pieces=np.where(gone, absent, pieces).astype(words.pieces.dtype),
        logs=np.where(gone, np.float16(SMALLEST), words.logs),
        others=others.astype(np.float16),
    )


def ask_words(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    translations: Sequence[str],
    task: Task,
    kept: int,
    temperature: float,
    max_batch_tokens: int,
) -> Words:
    """The model's `kept` likeliest pieces at each word of these translations, softened by `temperature`."""
    rows = encode_pairs(tokenizer, texts, translations, task)
    found: list[Any] = [None] * len(rows)
    device = next(model.parameters()).device
    half = torch.autocast(device.type, torch.bfloat16, enabled=has_bf16())  # log-probabilities move by about 0.01
    with torch.inference_mode(), half:
        for batch in by_length([int(size) for size in lengths(rows).sum(axis=1)], max_batch_tokens):
            inputs = collate_pairs(tokenizer.pad_token_id, model, [rows[row] for row in batch])
            known = ("input_ids", "attention_mask", "decoder_input_ids")
            logits = model(**{key: inputs[key].to(device) for key in known}).logits.float() / temperature
            for row, at in zip(batch, logits, strict=True):
                found[row] = _likeliest(at[: len(rows[row]["labels"])], kept)
    starts = np.cumsum([0, *(len(row["labels"]) for row in rows)]).astype(np.int64)
    small = len(tokenizer) <= np.iinfo(np.uint16).max
    return Words(
        np.concatenate([pieces for pieces, _, _ in found]).astype(np.uint16 if small else np.int32),
        np.concatenate([logs for _, logs, _ in found]),
        np.concatenate([others for _, _, others in found]),
        starts,
        temperature,
    )


def _likeliest(logits: torch.Tensor, kept: int) -> tuple[NDArray[np.int64], NDArray[np.float16], NDArray[np.float16]]:
    """The first `kept` pieces of each word, their log-probabilities and that of the others, from `(words, pieces)`."""
    logs = functional.log_softmax(logits, dim=-1)
    best, pieces = logs.topk(min(kept, logs.shape[-1] - 1), dim=-1)
    others = logs.scatter_(-1, pieces, -torch.inf).logsumexp(dim=-1)
    half = [value.clamp(min=SMALLEST).cpu().numpy().astype(np.float16) for value in (best, others)]
    return pieces.cpu().numpy(), half[0], half[1]


def padded_words(rows: Sequence[dict[str, Any]], width: int) -> dict[str, torch.Tensor] | None:
    """The words of one batch, padded to `width` words; None when no row has any.

    `pieces` `(batch, width, k)`, `logs` `(batch, width, k + 1)` and `there` `(batch, width)`, which is true where the
    teacher was asked.
    """
    known = [row["words"] for row in rows if row.get("words") is not None]
    if not known:
        return None
    kept = known[0][0].shape[1]
    pieces = torch.zeros(len(rows), width, kept, dtype=torch.long)
    logs = torch.zeros(len(rows), width, kept + 1)
    there = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        if row.get("words") is not None:
            ids, values = row["words"]
            pieces[number, : len(ids)], logs[number, : len(ids)] = torch.from_numpy(ids), torch.from_numpy(values)
            there[number, : len(ids)] = True
    return {"pieces": pieces, "logs": logs, "there": there}


def collate_words(pad: int, model: nn.Module, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One batch of pairs, with the teacher's words under `teacher_logits` where rows have them."""
    batch = collate_pairs(pad, model, rows)
    words = padded_words(rows, batch["labels"].shape[1])
    return batch if words is None else {**batch, "teacher_logits": words}
