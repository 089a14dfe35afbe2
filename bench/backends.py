"""Runtimes that can be measured; a new one is a file with an `open_backend` and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bench.candidates import Candidate
from bench.written import Written
from distill.errors import DataError, MissingExtraError
from distill.task import Task
from export.texts import Text

Batch = Mapping[str, NDArray[np.int64]]
"""`input_ids`, `attention_mask` and `token_type_ids`, each `(batch, length)`."""


class Backend(Protocol):
    """A loaded model that answers."""

    @property
    def task(self) -> Task:
        """What the model answers."""

    def run(self, batch: Batch) -> object:
        """Answer ids that fit the model: a fixed amount of work, whatever the ids are."""


class Classifier(Backend, Protocol):
    """A loaded model that labels; `run` gives logits `(batch, labels)`."""

    def logits(self, texts: Sequence[Text], batch_size: int) -> NDArray[np.float32]:
        """Logits `(texts, labels)` of texts, tokenizer included."""


class Translating(Backend, Protocol):
    """A loaded model that translates; `run` writes as many tokens as the sources have."""

    def translate(self, texts: Sequence[str], beams: int) -> list[Written]:
        """One batch of sentences translated, tokenizer included."""


Opener = Callable[[Path, str, int, str], AbstractContextManager[Backend]]

RUNTIMES: Mapping[str, str] = MappingProxyType(
    {
        "torch": "bench.with_torch",
        "onnxruntime": "bench.with_onnxruntime",
        "openvino": "bench.peers.remote",
        "ctranslate2": "bench.peers.remote",
        "optimum": "bench.peers.remote",
    }
)
"""Modules are imported when their runtime is asked for: memory is measured with one runtime in the process."""


def own_time(backend: Backend) -> float | None:
    """The milliseconds of its last answer, from a backend that counts them itself: one in another process."""
    return getattr(backend, "milliseconds", None)


def open_candidate(candidate: Candidate, threads: int, device: str) -> AbstractContextManager[Backend]:
    """The candidate's backend, to be used in a `with` block; see the runtime's `open_backend`."""
    return opener(candidate.runtime)(candidate.folder, candidate.precision, threads, device)


def opener(runtime: str) -> Opener:
    """How a runtime opens a folder: `(folder, precision, threads, device) -> Backend` as a context manager.

    Raises:
        DataError: nobody registered this runtime.
        MissingExtraError: it is not installed.
    """
    if runtime not in RUNTIMES:
        raise DataError(f"runtime {runtime!r} is unknown; expected one of {', '.join(RUNTIMES)}")
    try:
        return cast(Opener, importlib.import_module(RUNTIMES[runtime]).open_backend)
    except ModuleNotFoundError as error:
        message = f"measuring in {runtime} needs {error.name}: pip install 'potstill[train,cpu]'"
        raise MissingExtraError(message) from error
