"""What a classifier answers: one label a text, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import RecipeError
from distill.task import Task
from export.bundle import Bundle
from export.session import Session, open_session
from export.texts import Limits, Text, TextReader, Tokens, check_texts, open_reader

BATCHES_AT_ONCE = 64  # so many are tokenized and sorted together; bounds the memory of a long list
SPARE_TOKENS = 16
"""Padding that a batch on a processor may have: beyond it another batch is faster (docs/benchmarks.md)."""


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


@dataclass(frozen=True)
class Predictor:
    """A loaded bundle. Safe to call from many threads; create it after forking."""

    bundle: Bundle
    provider: str
    threads: int | None
    limits: Limits
    reader: TextReader = field(repr=False)
    session: Session = field(repr=False)

    @property
    def task(self) -> Task:
        """What the model answers."""
        return self.bundle.task

    @property
    def bundle_id(self) -> str:
        """The sha256 of bundle.json: pin it to know that the bundle is the one you tested."""
        return self.bundle.id

    def __call__(self, texts: Sequence[Text], batch_size: int = 32) -> list[Prediction]:
        """One prediction a text, in the order of `texts`; pairs are `(text, pair)` tuples.

        Raises:
            TypeError: a text is not a string, or not a pair where the task wants pairs.
        """
        logits, truncated = self._answer(texts, batch_size)
        return predictions(self.task, logits, truncated)

    def probabilities(self, texts: Sequence[Text], batch_size: int = 32) -> NDArray[np.float32]:
        """Probabilities `(texts, labels)`, labels in the order of `task.labels`."""
        return probabilities(self.logits(texts, batch_size))

    def logits(self, texts: Sequence[Text], batch_size: int = 32) -> NDArray[np.float32]:
        """Raw outputs `(texts, labels)`."""
        return self._answer(texts, batch_size)[0]

    def encode(self, texts: Sequence[Text]) -> dict[str, NDArray[np.int64]]:
        """One batch `(texts, longest)` of what the model is fed, for `forward`; at least one text.

        Raises:
            TypeError: as when called.
            RecipeError: no texts.
        """
        checked = check_texts(texts, self.reader.pair)
        if not checked:
            raise RecipeError("expected at least one text to encode, found none")
        arrays = self.reader.arrays(self.reader.read(checked))
        return {name: arrays[name] for name in self.session.dtypes}

    def forward(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Logits `(texts, labels)` of ids `(texts, length)` that the caller made; casts, and ignores other inputs.

        A missing `attention_mask` means that nothing is padding, missing `token_type_ids` that all is one text.

        Raises:
            RecipeError: naming every shape, dtype or id that does not fit; onnxruntime itself accepts -1.
        """
        ids = np.asarray(inputs.get("input_ids", ()))
        defaults = {"attention_mask": np.ones_like, "token_type_ids": np.zeros_like}
        made = {name: make(ids) for name, make in defaults.items() if name not in inputs}
        arrays = {name: np.asarray({**made, **inputs}[name]) for name in ("input_ids", *defaults) if ids.size}
        problems = _input_problems(arrays, self.limits)
        if problems:
            raise RecipeError("these inputs do not fit the model", problems)
        return self.session.run(arrays)

    def try_out(self) -> None:
        """Answer an empty text, and the longest input of the highest id.

        Raises:
            BundleError: the model fails.
        """
        self([("", "") if self.task.pair else ""])
        self.forward({"input_ids": np.full((1, self.task.max_length), self.limits.rows - 1)})

    def _answer(self, texts: Sequence[Text], batch_size: int) -> tuple[NDArray[np.float32], list[bool]]:
        """Logits `(texts, labels)` and which texts were cut."""
        if batch_size < 1:
            raise RecipeError(f"batch_size: expected at least 1, found {batch_size}")
        checked = check_texts(texts, self.reader.pair)
        logits = np.empty((len(checked), self.task.num_labels), np.float32)
        truncated: list[bool] = []
        window = batch_size * BATCHES_AT_ONCE
        for start in range(0, len(checked), window):
            tokens = self.reader.read(checked[start : start + window])
            self._fill(logits[start : start + window], tokens, batch_size)
            truncated += [each.truncated for each in tokens]
        return logits, truncated

    def _fill(self, logits: NDArray[np.float32], tokens: Sequence[Tokens], batch_size: int) -> None:
        """Compute `logits` in batches of about equal length, so that little padding is computed."""
        spare = SPARE_TOKENS if self.provider == "cpu" else None
        for rows in batches([len(each.ids) for each in tokens], batch_size, spare):
            logits[rows] = self.session.run(self.reader.arrays([tokens[row] for row in rows]))


def batches(lengths: Sequence[int], most: int, spare: int | None) -> Iterator[list[int]]:
    """Rows by length, the longest first, in batches of at most `most` rows, with at most `spare` tokens of padding."""
    rows: list[int] = []
    padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        padding += lengths[rows[0]] - lengths[row] if rows else 0
        if len(rows) == most or (spare is not None and padding > spare):
            yield rows
            rows, padding = [], 0
        rows.append(row)
    if rows:
        yield rows


def open_predictor(
    bundle: Bundle, model: bytes, tokenizer: bytes, limits: Limits, provider: str, threads: int | None
) -> Predictor:
    """The classifier of a bundle whose files were read.

    Raises:
        BundleError, ProviderError, MissingExtraError: as `export.runtime.load`.
    """
    reader = open_reader(tokenizer, limits, bundle.task, parallel=threads != 1)
    return Predictor(bundle, provider, threads, limits, reader, open_session(bundle, model, provider, threads))


def _input_problems(arrays: Mapping[str, NDArray[Any]], limits: Limits) -> list[str]:
    """What is wrong with arrays that a caller made."""
    if not arrays or arrays["input_ids"].ndim != 2:
        return ["input_ids: expected (texts, length), at least one of each"]
    shape = arrays["input_ids"].shape
    problems = [f"{name}: expected integers" for name, array in arrays.items() if array.dtype.kind not in "iu"]
    problems += [f"{name}: shape {a.shape} is not that of input_ids" for name, a in arrays.items() if a.shape != shape]
    if limits.positions is not None and shape[1] > limits.positions:
        problems.append(f"input_ids: {shape[1]} tokens, the model has {limits.positions} positions")
    highest = {"input_ids": limits.rows, "attention_mask": 2, "token_type_ids": limits.types}
    for name, array in arrays.items():
        if array.min() < 0 or array.max() >= highest[name]:
            problems.append(f"{name}: expected 0 to {highest[name] - 1}, found {array.min()} to {array.max()}")
    return problems
