"""Execution providers: which ones there are, and proof that the one asked for is the one that runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType

from distill.errors import MissingExtraError, ProviderError

PROVIDERS = MappingProxyType(
    {
        "cpu": ("CPUExecutionProvider",),
        "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
        "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    }
)
INT8, WEIGHTS = ("int8-dynamic", "int8-static"), ("int8-weights", "int4-weights")
TENSORRT_INT8 = MappingProxyType({"trt_int8_enable": "1", "trt_fp16_enable": "1"})
"""Options without which TensorRT refuses a graph that has int8 ranges."""


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime when it is first needed.

    Raises:
        MissingExtraError: it is not installed, cannot start, or is installed twice over.
    """
    try:
        module = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise MissingExtraError(f"onnxruntime cannot be imported: {error}") from error
        raise MissingExtraError(
            "running a bundle needs onnxruntime: pip install 'potstill[cpu]' (or 'potstill[gpu]')"
        ) from error
    except ImportError as error:
        raise MissingExtraError(f"onnxruntime is installed but cannot be imported: {error}") from error
    check_one_distribution(sys.path)
    return module


def check_one_distribution(folders: Sequence[str]) -> None:
    """Refuse an environment that holds both onnxruntime and onnxruntime-gpu.

    They share one import name: the one installed last wins and removing either breaks the other.
    The folders are listed here, because importing importlib.metadata alone takes 50 ms.

    Raises:
        MissingExtraError: naming both, and how to keep one.
    """
    stems = {path.name.split("-")[0] for folder in folders for path in Path(folder).glob("onnxruntime*.dist-info")}
    found = sorted(stem.replace("_", "-") for stem in stems & {"onnxruntime", "onnxruntime_gpu"})
    if len(found) > 1:
        raise MissingExtraError(
            f"{' and '.join(found)} are both installed, and overwrite each other's files; keep one: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'potstill[cpu]' or 'potstill[gpu]'"
        )


def execution_providers(provider: str, available: Sequence[str]) -> list[str]:
    """The names onnxruntime has for "cpu", "cuda" or "tensorrt", first choice first.

    Raises:
        ProviderError: unknown, or not in this onnxruntime.
    """
    wanted = PROVIDERS.get(provider)
    if wanted is None or wanted[0] not in available:
        usable = [name for name, (first, *_) in PROVIDERS.items() if first in available]
        hint = "" if wanted is None else " It comes with pip install 'potstill[gpu]'."
        raise ProviderError(f"no execution provider {provider!r} here; available: {', '.join(usable)}.{hint}")
    return [name for name in wanted if name in available]


def check_fits(provider: str, precision: str, device: str) -> None:
    """Refuse a form of model that a provider could only run badly; `device` is what the bundle was made for.

    Raises:
        ProviderError: saying why, and what to do.
    """
    why = None
    if provider == "cuda" and precision in INT8:
        why = "onnxruntime has no int8 products for CUDA: such a model is slower there than in fp32"
    elif provider == "tensorrt" and (precision in WEIGHTS or (precision in INT8 and device != "tensorrt")):
        why = "TensorRT reads int8 with fixed ranges around zero alone"
    if why is not None:
        raise ProviderError(
            f"an {precision} bundle made for {device} does not go with provider {provider!r}: {why}; make one from the "
            f"fp32 bundle with `compress quantize --device {provider}`, or load this one with provider 'cpu'"
        )


def check_running(provider: str, running: Sequence[str]) -> None:
    """Refuse a session that quietly runs on something else than was asked for.

    Raises:
        ProviderError: naming what runs instead.
    """
    if not running or running[0] != PROVIDERS[provider][0]:
        usable = [name for name, (first, *_) in PROVIDERS.items() if first in running]
        raise ProviderError(
            f"the execution provider {provider!r} did not start (a driver or library of it is missing); "
            f"available: {', '.join(usable)}"
        )
