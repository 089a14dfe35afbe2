"""The front door: load a bundle and ask it, with numpy, tokenizers and onnxruntime alone.

>>> from potstill import load
>>> model = load("runs/sentiment/bundle")
>>> model(["a gorgeous film"])
[Prediction(label='positive', score=0.98, truncated=False)]
"""

from __future__ import annotations

from distill.errors import PotstillError
from export.bundle import installed_version
from export.runtime import Prediction, Predictor, Translation, Translator, load

__all__ = ["PotstillError", "Prediction", "Predictor", "Translation", "Translator", "load"]


def __getattr__(name: str) -> str:
    """`__version__`, looked up when asked for: that takes 50 ms, which `load` does not need."""
    if name == "__version__":
        return installed_version()
    raise AttributeError(f"module 'potstill' has no attribute {name!r}")
