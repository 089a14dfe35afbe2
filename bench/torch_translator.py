"""Translating checkpoints in torch, by transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from bench.backends import Batch
from bench.written import Written, of_length, searched
from distill.checkpoint import load_tokenizer
from distill.seq2seq import load_seq2seq, set_languages
from distill.task import Task
from export.decoding import Decoding
from export.seq2seq.checks import decoding_of
from export.seq2seq.parity import generate


@dataclass(frozen=True)
class TorchTranslator:
    """A translating checkpoint in evaluation mode."""

    task: Task
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    rules: Decoding

    def run(self, batch: Batch) -> list[list[int]]:
        """Write as many tokens as the sources have."""
        ids = batch["input_ids"]
        return generate(self.model, ids, batch["attention_mask"], of_length(self.rules, ids.shape[1]))

    def translate(self, texts: Sequence[str], beams: int) -> list[Written]:
        """One batch of sentences, each cut to the task's length."""
        found: Any = self.tokenizer(
            list(texts), truncation=True, max_length=self.task.max_length, padding=True, return_tensors="np"
        )
        ids, mask = (np.asarray(found[name], np.int64) for name in ("input_ids", "attention_mask"))
        rows = generate(self.model, ids, mask, searched(self.rules, beams))
        longest = self.rules.max_length - (self.rules.forced_end is not None)
        answers = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [Written(text, len(row), len(row) >= longest) for text, row in zip(answers, rows, strict=True)]


def open_torch_translator(folder: Path, task: Task, device: str) -> TorchTranslator:
    """A checkpoint of an encoder-decoder.

    Raises:
        CheckpointError: it cannot be loaded.
        RecipeError: its tokenizer does not know the task's languages.
    """
    model, tokenizer = load_seq2seq(folder), load_tokenizer(folder)
    set_languages(model, tokenizer, task)
    return TorchTranslator(task, model.eval().to(device), tokenizer, decoding_of(model, task))
