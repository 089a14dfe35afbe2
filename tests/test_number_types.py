"""Which numbers a processor multiplies fast, by its name and instructions; and what a training does with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from translation_models import tiny_translator

from distill import number_types
from distill.layers import model_config
from distill.number_types import fast_attention, fastest, multiplies_bf16

PROCESSORS: list[tuple[dict[str, object], bool, torch.dtype]] = [
    ({}, False, torch.float32),
    ({"cpu_name": "Intel(R) Xeon(R)", "avx512_vnni": True}, False, torch.float32),
    ({"cpu_name": "Intel(R) Xeon(R)", "avx512_bf16": True}, False, torch.float32),
    ({"cpu_name": "Intel(R) Xeon(R)", "avx512_bf16": True, "amx_bf16": True}, True, torch.bfloat16),
    ({"cpu_name": "Intel(R) Xeon(R)", "amx_bf16": True, "avx512_fp16": True}, True, torch.float16),
    ({"cpu_name": "AMD EPYC", "avx512_f": True}, False, torch.float32),
    ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True, torch.bfloat16),
]


@pytest.mark.parametrize(("capabilities", "bf16", "dtype"), PROCESSORS)
def test_what_a_processor_multiplies_fast(capabilities: dict[str, object], bf16: bool, dtype: torch.dtype) -> None:
    assert (multiplies_bf16(capabilities), fastest(capabilities)) == (bf16, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_type_brings_singular_values_near_one(dtype: torch.dtype) -> None:
    from distill.shared_muon import iterations

    update = torch.randn(16, 24, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(iterations(dtype)(update).float())
    assert values.min() > 0.5 and values.max() < 1.5


@pytest.mark.parametrize(
    ("capabilities", "bf16", "found"),
    [
        ({"avx512_bf16": True}, True, "eager"),
        ({"avx512_bf16": True}, False, "sdpa"),
        ({"avx512_bf16": True, "amx_bf16": True}, True, "sdpa"),
    ],
)
def test_attention_while_training(
    capabilities: dict[str, object], bf16: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_types, "capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = tiny_translator("marian")
    config: Any = model_config(model)
    assert config._attn_implementation == "sdpa"
    with fast_attention(model, bf16=bf16):
        assert config._attn_implementation == found
    assert config._attn_implementation == "sdpa"
