"""Bundles answer: `load` a folder, call it with texts. Needs numpy, tokenizers and onnxruntime, never torch."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from distill.errors import BundleError, RecipeError
from export.bundle import read_bundle, read_files, warn_of_extra_files
from export.manifest import CONFIG, TOKENIZER
from export.processor import warn_of_processor
from export.tasks import OPEN, Model
from export.tasks.classification import Prediction, Predictor
from export.tasks.translation import Translation, Translator
from export.texts import read_limits

Kind = TypeVar("Kind", bound=Predictor | Translator)

__all__ = [
    "Model",
    "Prediction",
    "Predictor",
    "Translation",
    "Translator",
    "load",
    "load_as",
    "verify_bundle",
]


def load(path: str | Path, *, threads: int | None = None, provider: str = "cpu", verify: bool = True) -> Model:
    """Load a bundle: every file is compared with its sha256 and the model opened from the bytes that were compared.

    What the model answers is its task's: a `Predictor` for classification, a `Translator` for translation.

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
    return OPEN[bundle.task.kind](bundle, contents[bundle.model_file], contents[TOKENIZER], limits, provider, threads)


def load_as(
    kind: type[Kind], path: str | Path, *, threads: int | None = None, provider: str = "cpu", verify: bool = True
) -> Kind:
    """Load a bundle whose answers are known to be those of a `Predictor`, or of a `Translator`.

    Raises:
        BundleError: as `load`, or it does something else.
        ProviderError, MissingExtraError, RecipeError: as `load`.
    """
    model = load(path, threads=threads, provider=provider, verify=verify)
    if not isinstance(model, kind):
        raise BundleError(f"{path}: expected a bundle for a {kind.__name__}, found one for {model.task.kind}")
    return model


def verify_bundle(path: str | Path, provider: str = "cpu") -> Model:
    """All that `load` checks, and that the model answers: an empty text, and its longest input of its highest id.

    Raises:
        BundleError, ProviderError, MissingExtraError: as `load`.
    """
    model = load(path, provider=provider)
    model.try_out()
    return model
