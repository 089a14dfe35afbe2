"""Which numbers this machine multiplies fast, and what follows for training.

Decided by names of instructions, not by timing: the same machine always trains alike, also after an interruption.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import nn

from distill.layers import attention


def capabilities() -> Mapping[str, object]:
    """The processor's name and instructions, as torch calls them: `amx_bf16`, `avx512_bf16`, `cpu_name`…"""
    found: Mapping[str, object] = torch.cpu.get_capabilities()
    return found


def has_bf16() -> bool:
    """Whether bfloat16 makes training faster here."""
    return bool(torch.cuda.is_bf16_supported()) if torch.cuda.is_available() else multiplies_bf16(capabilities())


def multiplies_bf16(processor: Mapping[str, object]) -> bool:
    """Whether a processor's bfloat16 products are faster than its float32 ones.

    AMX is; AVX512-BF16 by itself is on AMD's (a training step took 0.3 to 0.4 of float32's time), not on Intel's
    (1.4 to 1.9 times as long).
    """
    name = str(processor.get("cpu_name", ""))
    return bool(processor.get("amx_bf16")) or bool(processor.get("avx512_bf16") and name.startswith("AMD"))


def fastest(processor: Mapping[str, object]) -> torch.dtype:
    """The type of the fastest products; types that a processor has none for are up to fifty times slower."""
    if processor.get("avx512_fp16") or processor.get("amx_fp16"):
        return torch.float16
    return torch.bfloat16 if multiplies_bf16(processor) else torch.float32


def fast_attention(model: nn.Module, *, bf16: bool) -> contextlib.AbstractContextManager[None]:
    """Attention as plain products while a model trains in bfloat16 on a processor without AMX.

    The backward pass of torch's fused attention has no fast bfloat16 products there: with 15 tokens a sentence it took
    as long as all the rest of a step. Meant for sentences: plain attention keeps its weights, length by length.
    """
    if bf16 and not torch.cuda.is_available() and not capabilities().get("amx_bf16"):
        return attention(model, "eager")
    return contextlib.nullcontext()
