"""What a number was measured on: the processor, its instructions, memory, system and versions. Torch-free.

No host name, user or path goes in: a report is made to be handed on.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
X86 = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
ARM = ("asimddp", "i8mm", "sve", "bf16")
FLAGS = (*X86, *ARM)
"""Instructions that decide how fast, and for int8 how exactly, a model runs."""
PACKAGES = ("potstill", "numpy", "tokenizers", "onnxruntime", "onnxruntime-gpu", "onnx", "torch", "transformers")


def environment(threads: int, cpuinfo: Path = CPUINFO) -> dict[str, Any]:
    """The machine and the software, as JSON values; `threads` is the most that a measurement used."""
    return {
        "cpu": cpu_model(cpuinfo),
        "flags": cpu_flags(cpuinfo),
        "virtual": "hypervisor" in _words(cpuinfo),
        "cores": cores(),
        "threads": threads,
        "memory_bytes": _memory(),
        "load": _load(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
    }


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, or its architecture where the system does not tell."""
    for line in _lines(cpuinfo):
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_flags(cpuinfo: Path = CPUINFO) -> list[str]:
    """Which of `FLAGS` this processor has, in their order."""
    words = _words(cpuinfo)
    return [flag for flag in FLAGS if flag in words]


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """The installed version of each package that takes part."""
    found = {name: _version(name) for name in PACKAGES}
    return {name: number for name, number in found.items() if number is not None}


def _version(name: str) -> str | None:
    """A package's version, if it is installed."""
    from importlib.metadata import PackageNotFoundError, version  # 50 ms, and the runtime only asks for flags

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _lines(cpuinfo: Path) -> list[str]:
    """What the system says about its processors; nothing where it has no such file."""
    try:
        return cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(cpuinfo: Path) -> set[str]:
    """The instructions of the first processor."""
    for line in _lines(cpuinfo):
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _memory() -> int | None:
    """Physical memory in bytes, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _load() -> float | None:
    """Processes that wanted to run during the last minute, where the system tells."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None
