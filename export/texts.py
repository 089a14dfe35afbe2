"""Texts become arrays: tokens as the training saw them, padded to the longest of their batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distill.errors import BundleError
from distill.files import parse_json
from distill.task import Task
from export.manifest import CONFIG, TOKENIZER

CHARACTERS_PER_TOKEN = 64  # far above any language's; keeps a million characters from being tokenized to be cut
PADDED = frozenset({"roberta", "xlm-roberta", "camembert", "roberta-prelayernorm"})  # positions begin after padding's

Text = str | tuple[str, str]


@dataclass(frozen=True)
class Limits:
    """What the model can take: ids below `rows`, segments below `types`, `positions` tokens (None: any number)."""

    rows: int
    types: int
    positions: int | None
    pad_id: int | None


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized text: ids and segment numbers, both `(length,)`."""

    ids: list[int]
    types: list[int]
    truncated: bool


@dataclass(frozen=True)
class TextReader:
    """A tokenizer set up once, and never changed, so that many threads can use it."""

    tokenizer: Tokenizer
    pad_id: int
    max_length: int
    pair: bool
    parallel: bool

    def read(self, texts: Sequence[Text]) -> list[Tokens]:
        """Tokenize checked texts, in their order."""
        limit = self.max_length * CHARACTERS_PER_TOKEN
        return [
            Tokens(encoding.ids, encoding.type_ids, _was_cut(text, limit, encoding, self.max_length))
            for text, encoding in zip(texts, self._encode([_cut(text, limit) for text in texts]), strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def arrays(self, tokens: Sequence[Tokens]) -> dict[str, NDArray[np.int64]]:
        """One batch `(texts, longest)` under the names that models use."""
        lengths = [len(each.ids) for each in tokens]
        longest = max(lengths)
        if min(lengths) == longest:
            return {
                "input_ids": np.array([each.ids for each in tokens], np.int64),
                "attention_mask": np.ones((len(tokens), longest), np.int64),
                "token_type_ids": np.array([each.types for each in tokens], np.int64),
            }
        mask = np.arange(longest) < np.array(lengths)[:, None]
        return {
            "input_ids": _pad([each.ids for each in tokens], self.pad_id, longest),
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": _pad([each.types for each in tokens], 0, longest),
        }

    def _encode(self, texts: list[Text]) -> list[Any]:
        """The tokenizer's encodings; half characters (lone surrogates), which it refuses, become U+FFFD."""
        try:
            return self._encode_strict(texts)
        except TypeError:
            return self._encode_strict([_whole(text) for text in texts])

    def _encode_strict(self, texts: list[Text]) -> list[Any]:
        """One by one where there is one thread, so that no thread pool is started behind the caller's back."""
        if self.parallel and len(texts) > 1:
            return list(self.tokenizer.encode_batch_fast(texts))
        pairs = [text if isinstance(text, tuple) else (text, None) for text in texts]
        return [self.tokenizer.encode(first, second) for first, second in pairs]


def read_limits(config: bytes) -> Limits:
    """What config.json, a Hugging Face configuration, says about the model's tables.

    Raises:
        BundleError: it is not JSON or does not say how many ids there are.
    """
    try:
        value = parse_json(config)
    except ValueError as error:
        raise BundleError(f"{CONFIG} cannot be read: {error}") from error
    value = value if isinstance(value, dict) else {}
    rows, positions, pad = (_count(value, key) for key in ("vocab_size", "max_position_embeddings", "pad_token_id"))
    if not rows:
        raise BundleError(f"{CONFIG} does not fit: expected a vocab_size, found {value.get('vocab_size')!r}")
    if positions is not None and value.get("model_type") in PADDED:
        positions -= (pad or 0) + 1
    return Limits(rows, _count(value, "type_vocab_size") or 2, positions, pad)


def open_reader(data: bytes, limits: Limits, task: Task, parallel: bool) -> TextReader:
    """Set up a tokenizer for `task` from the content of its tokenizer.json.

    Raises:
        BundleError: it cannot be read, or naming every way in which it does not fit the model.
    """
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise BundleError(f"{TOKENIZER} cannot be read: {error}; copy or build the bundle again") from error
    pad_id = _pad_id(tokenizer, limits)
    special = tokenizer.num_special_tokens_to_add(task.pair is not None)
    problems = _problems(tokenizer, limits, task, special, pad_id)
    if problems:
        raise BundleError(f"{TOKENIZER} does not fit the model", problems)
    assert pad_id is not None
    tokenizer.enable_truncation(task.max_length, strategy="longest_first")
    tokenizer.no_padding()
    return TextReader(tokenizer, pad_id, task.max_length, task.pair is not None, parallel)


def check_texts(texts: Sequence[Text], pair: bool) -> list[Text]:
    """The texts as a list, each of the type that the task wants.

    Raises:
        TypeError: naming the first index that does not fit.
    """
    if isinstance(texts, str | bytes | Mapping):
        raise TypeError(f"expected a list of texts, found one {type(texts).__name__}: write model([text])")
    listed = list(texts)
    for index, text in enumerate(listed):
        if pair:
            _check_pair(index, text)
        elif not isinstance(text, str):
            raise TypeError(f"text {index}: expected str, found {type(text).__name__}: {_short(text)}")
    return listed


def _check_pair(index: int, text: object) -> None:
    """Refuse what is not two strings."""
    if not isinstance(text, tuple) or len(text) != 2 or not all(isinstance(part, str) for part in text):
        raise TypeError(f"text {index}: this model wants pairs, expected (str, str), found {_short(text)}")


def _short(value: object) -> str:
    """The beginning of a value, for a message."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _count(value: dict[str, Any], key: str) -> int | None:
    """A whole number of at least 0, or None."""
    number = value.get(key)
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _pad_id(tokenizer: Tokenizer, limits: Limits) -> int | None:
    """The id of padding: what the model was configured with, else what the tokenizer says."""
    if limits.pad_id is not None:
        return limits.pad_id
    named = (tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>"))
    return tokenizer.padding["pad_id"] if tokenizer.padding else next((i for i in named if i is not None), None)


def _problems(tokenizer: Tokenizer, limits: Limits, task: Task, special: int, pad_id: int | None) -> list[str]:
    """Every way in which tokenizer and model do not fit."""
    highest = max(tokenizer.get_vocab().values(), default=-1)
    checks = [
        (highest < limits.rows, f"it makes ids up to {highest}, the model has {limits.rows} embedding rows"),
        (pad_id is not None, f"there is no padding token, and no pad_token_id in {CONFIG}"),
        ((pad_id or 0) < limits.rows, f"padding has id {pad_id}, the model has {limits.rows} embedding rows"),
        (special > 0, "it adds no special tokens, so an empty text would have no tokens at all"),
        (task.max_length > special, f"max_length {task.max_length} leaves no room beside {special} special tokens"),
        (
            limits.positions is None or task.max_length <= limits.positions,
            f"max_length is {task.max_length}, the model has {limits.positions} positions",
        ),
    ]
    return [problem for fits, problem in checks if not fits]


def _cut(text: Text, limit: int) -> Text:
    """The text, each part at most `limit` characters long."""
    return text[:limit] if isinstance(text, str) else (text[0][:limit], text[1][:limit])


def _was_cut(text: Text, limit: int, encoding: Any, max_length: int) -> bool:
    """Whether the model does not see all of the text."""
    longest = len(text) if isinstance(text, str) else max(map(len, text))
    return longest > limit or (len(encoding.ids) >= max_length and bool(encoding.overflowing))


def _whole(text: Text) -> Text:
    """The text with its surrogate pairs joined and its lone surrogates replaced."""
    if isinstance(text, tuple):
        return (str(_whole(text[0])), str(_whole(text[1])))
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _pad(rows: Sequence[Sequence[int]], fill: int, length: int) -> NDArray[np.int64]:
    """Rows of unequal length as one array `(rows, length)`."""
    padded = np.full((len(rows), length), fill, np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
