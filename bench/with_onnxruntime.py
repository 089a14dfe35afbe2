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
from bench.onnx_translator import BundleTranslator
from distill.errors import BundleError
from distill.task import Task
from export.providers import check_running, execution_providers
from export.runtime import Model, Predictor, Translator, load
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
    model = load(folder, threads=threads, provider=device)
    if model.bundle.precision.partition("-")[0] != precision:
        raise BundleError(f"{folder}: expected a bundle in {precision}, found {model.bundle.precision}")
    model = model if threads == 1 else _without_spinning(model, threads)
    yield backend_of(model)


def backend_of(model: Model) -> Backend:
    """What is measured of a loaded bundle."""
    return BundleTranslator(model) if isinstance(model, Translator) else BundleBackend(model)


def _without_spinning(model: Model, threads: int) -> Model:
    """The same model on a session whose threads sleep when it has nothing to do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = not isinstance(model, Translator)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return with_options(model, options)


def with_options(model: Model, options: ort.SessionOptions) -> Model:
    """The same model on a session of its own, with these options."""
    providers = execution_providers(model.provider, ort.get_available_providers())
    onnx = ort.InferenceSession(model.bundle.model_path.read_bytes(), options, providers=providers)
    check_running(model.provider, onnx.get_providers())
    if isinstance(model, Translator):
        return replace(model, engine=replace(model.engine, onnx=onnx))
    return replace(model, session=replace(model.session, onnx=onnx))
