"""Bundles answer: `load` a folder, call it with texts. Needs numpy, tokenizers and onnxruntime, never torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import RecipeError
from distill.task import Task
from export.bundle import Bundle, read_bundle, read_files, warn_of_extra_files
from export.manifest import CONFIG, TOKENIZER
from export.processor import warn_of_processor
from export.session import Session, open_session
from export.tasks import PREDICTIONS, PROBABILITIES
from export.tasks.classification import Prediction
from export.texts import Limits, Text, TextReader, Tokens, check_texts, open_reader, read_limits

BATCHES_AT_ONCE = 64  # so many are tokenized and sorted together; bounds the memory of a long list


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
        return PREDICTIONS[self.task.kind](self.task, logits, truncated)

    def probabilities(self, texts: Sequence[Text], batch_size: int = 32) -> NDArray[np.float32]:
        """Probabilities `(texts, labels)`, labels in the order of `task.labels`."""
        return PROBABILITIES[self.task.kind](self.logits(texts, batch_size))

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
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index].ids))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            logits[rows] = self.session.run(self.reader.arrays([tokens[row] for row in rows]))


def load(path: str | Path, *, threads: int | None = None, provider: str = "cpu", verify: bool = True) -> Predictor:
    """Load a bundle: every file is compared with its sha256 and the model opened from the bytes that were compared.

    `threads` are those of one operator (None: onnxruntime's choice); `provider` is "cpu", "cuda" or "tensorrt".
    `verify=False` leaves the hashes out, for a bundle that was verified where it was stored.

    Raises:
        BundleError: damaged, not a bundle, or not one that this onnxruntime runs.
        ProviderError: the provider is missing or did not start.
        MissingExtraError: onnxruntime is not installed.
        RecipeError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise RecipeError(f"threads: expected at least 1, found {threads}")
    bundle = read_bundle(Path(path), verify=False)
    contents = read_files(bundle, keep=(bundle.model_file, TOKENIZER, CONFIG), verify=verify)
    if verify:
        warn_of_extra_files(bundle)
    warn_of_processor(bundle)
    limits = read_limits(contents[CONFIG])
    reader = open_reader(contents[TOKENIZER], limits, bundle.task, parallel=threads != 1)
    session = open_session(bundle, contents[bundle.model_file], provider, threads)
    return Predictor(bundle, provider, threads, limits, reader, session)


def verify_bundle(path: str | Path, provider: str = "cpu") -> Predictor:
    """All that `load` checks, and that the model answers: an empty text, and its longest input of its highest id.

    Raises:
        BundleError, ProviderError, MissingExtraError: as `load`.
    """
    predictor = load(path, provider=provider)
    predictor([("", "") if predictor.task.pair else ""])
    longest = np.full((1, predictor.task.max_length), predictor.limits.rows - 1)
    predictor.forward({"input_ids": longest})
    return predictor


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
