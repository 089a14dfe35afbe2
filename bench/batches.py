"""Fixed batches of real token ids: made once, the same for all models that share a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bench.backends import Batch
from export.texts import Text

ENOUGH = 1024
"""Texts from which ids are taken; more would only take longer to tokenize."""


def fixed_batch(tokenizer_file: Path, texts: Sequence[Text], batch: int, length: int, seed: int) -> Batch:
    """Arrays `(batch, length)`: windows of the texts' own ids between the tokenizer's special tokens, no padding.

    Ids decide little of the time of a dense model, but all of it in a table that does not fit the caches, so real
    ones are taken. Without texts they are drawn from the whole vocabulary.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    before, after = _special(tokenizer)
    room = max(length - len(before) - len(after), 0)
    generator = np.random.default_rng(seed)
    stream = _stream(tokenizer, texts[:ENOUGH], generator)
    starts = generator.integers(0, len(stream), size=batch)
    rows = [[*before, *np.take(stream, range(start, start + room), mode="wrap"), *after] for start in starts]
    ids = np.asarray(rows, np.int64)[:, :length]
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def mean_length(tokenizer_file: Path, texts: Sequence[Text], longest: int) -> int:
    """The mean number of tokens of the texts, special tokens included, each at most `longest`."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
    return round(float(np.mean(np.minimum(lengths, longest))))


def _special(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special ids that the tokenizer puts before and after a text."""
    encoding = tokenizer.encode("a")
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    count = len(encoding.ids) - len(bare)
    start = next((i for i in range(count + 1) if encoding.ids[i : i + len(bare)] == bare), count)
    return encoding.ids[:start], encoding.ids[start + len(bare) :]


def _stream(tokenizer: Tokenizer, texts: Sequence[Text], generator: np.random.Generator) -> NDArray[np.int64]:
    """All ids of the texts in a row; a random permutation of the vocabulary where there are none."""
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    ids = [number for encoding in encodings for number in encoding.ids]
    return np.asarray(ids, np.int64) if ids else generator.permutation(sorted(tokenizer.get_vocab().values()))
