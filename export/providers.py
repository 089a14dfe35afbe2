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
