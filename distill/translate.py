"""A model's translations of texts, by transformers' `generate`; labelling may have a faster engine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from distill.progress import Report, silent
from distill.task import Task


@dataclass(frozen=True)
class Search:
    """How translations are looked for: beams (1: greedy), how many a sentence, and source tokens a batch.

    `max_batch_tokens` counts padding and beams; `length_penalty` is the exponent of the length that a hypothesis's
    log-probability is divided by.
    """

    beams: int = 1
    n_best: int = 1
    length_penalty: float = 1.0
    max_batch_tokens: int = 4000


@dataclass(frozen=True)
class Hypothesis:
    """One translation; `ended` is false where the decoder was stopped at the longest length."""

    text: str
    ended: bool


Engine = Callable[[Sequence[str], Search], list[tuple[Hypothesis, ...]]]
"""A teacher that answers as `translate` does."""


def translate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    task: Task,
    search: Search,
    report: Report = silent,
    stage: str = "translate",
) -> list[tuple[Hypothesis, ...]]:
    """For each text its `search.n_best` translations, the likeliest first, in the order of `texts`.

    The model stays where it is; its generation config says what the decoder starts from.
    """
    encoded = tokenizer(list(texts), truncation=True, max_length=task.max_length)["input_ids"] if texts else []
    found: list[tuple[Hypothesis, ...]] = [()] * len(texts)
    was_training, done = model.training, 0
    model.eval()
    with torch.inference_mode():
        for rows in by_length([len(ids) for ids in encoded], search.max_batch_tokens // search.beams):
            answers = _decode(model, tokenizer, [encoded[row] for row in rows], task, search)
            for row, answer in zip(rows, answers, strict=True):
                found[row] = answer
            done += len(rows)
            report(stage, done, len(texts))
    model.train(was_training)
    return found


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, the longest rows first.

    Rows times the longest one stay within `budget`, but for a batch of one row.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _decode(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[list[int]], task: Task, search: Search
) -> list[tuple[Hypothesis, ...]]:
    """The translations of one batch."""
    own = cast(Any, model)
    batch = tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt").to(own.device)
    most = task.max_target_length or task.max_length
    config = copy.deepcopy(own.generation_config)
    config.update(
        do_sample=False,
        num_beams=search.beams,
        num_return_sequences=search.n_best,
        length_penalty=search.length_penalty,
        early_stopping=False,
        max_length=most + 1,  # the start counts
        max_new_tokens=None,
    )
    ids, mask = batch["input_ids"], batch["attention_mask"]
    answers = own.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, 1:]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    ended = _ended(answers, own.generation_config, most)
    flat = [Hypothesis(text, end) for text, end in zip(texts, ended, strict=True)]
    return [tuple(flat[start : start + search.n_best]) for start in range(0, len(flat), search.n_best)]


def _ended(answers: torch.Tensor, config: Any, most: int) -> list[bool]:
    """Which answers `(rows, length)` came to an end of their own."""
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    own = answers[:, : most - 1] if config.forced_eos_token_id is not None else answers
    return [bool(found) for found in torch.isin(own, own.new_tensor(ends)).any(dim=1).tolist()]
