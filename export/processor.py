"""Whether this processor computes an int8 model as the one did that it was checked on."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from export.bundle import Bundle

VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})  # sum products in 32 bits; AVX2 alone saturates at 16


def warn_of_processor(bundle: Bundle, flags: Collection[str] | None = None) -> None:
    """Warn if an int8 model with eight-bit weights was checked with VNNI and will run without it.

    `flags` are the instructions of this processor (None: look). A published model lost 8 points of MRR that way;
    quantized with `reduce_range` it held on both.
    """
    checked_on = bundle.cpu.get("flags")
    if bundle.precision not in ("int8-dynamic", "int8-static") or bundle.details.get("reduce_range"):
        return
    if not isinstance(checked_on, list) or not VNNI & set(map(str, checked_on)):
        return
    if saturates(_flags() if flags is None else flags):
        warnings.warn(
            "this int8 model was checked on a processor with VNNI, which this one lacks: its answers can differ; "
            "measure them here, or quantize again with reduce_range",
            stacklevel=3,
        )


def saturates(flags: Collection[str]) -> bool:
    """Whether a processor with these instructions sums eight-bit products in 16 bits (False where nobody can tell)."""
    return "avx2" in flags and not VNNI & set(flags)


def _flags() -> list[str]:
    """Instructions of this processor; read for int8 models alone, the import takes a while."""
    from distill.environment import cpu_flags

    return cpu_flags()
