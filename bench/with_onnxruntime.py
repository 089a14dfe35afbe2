"""Bundles in onnxruntime, through the public Predictor. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench.backends import Backend, Batch
from distill.errors import BundleError
from distill.task import Task
from export.providers import check_running, execution_providers
from export.runtime import Predictor, load_classifier
from export.texts import Text


@dataclass(frozen=True)
class BundleBackend:
    """A bundle's predictor."""

    predictor: Predictor

    @property
    def task(self) -> Task:
        """What the bundle answers."""
        return self.predictor.task

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits `(batch, labels)`."""
        return self.predictor.session.run(batch)

    def logits(self, texts: Sequence[Text], batch_size: int) -> NDArray[np.float32]:
        """Logits `(texts, labels)`, as an app would get them."""
        return self.predictor.logits(texts, batch_size)


@contextmanager
def open_backend(folder: Path, precision: str, threads: int, device: str) -> Iterator[Backend]:
    """A bundle; with more than one thread its session does not spin.

    Threads of a session spin for a while after each answer, and take the cores from whatever runs next: measured
    in turns with it on two cores, torch took 46 ms for what takes it 20.

    Raises:
        BundleError: the bundle cannot be loaded, or has another precision.
        ProviderError: the execution provider is missing or did not start.
    """
    predictor = load_classifier(folder, threads=threads, provider=device)
    if predictor.bundle.precision.partition("-")[0] != precision:
        raise BundleError(f"{folder}: expected a bundle in {precision}, found {predictor.bundle.precision}")
    yield BundleBackend(predictor if threads == 1 else _without_spinning(predictor, threads))


def _without_spinning(predictor: Predictor, threads: int) -> Predictor:
    """The same predictor on a session whose threads sleep when it has nothing to do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = execution_providers(predictor.provider, ort.get_available_providers())
    onnx = ort.InferenceSession(predictor.bundle.model_path.read_bytes(), options, providers=providers)
    check_running(predictor.provider, onnx.get_providers())
    return replace(predictor, session=replace(predictor.session, onnx=onnx))
