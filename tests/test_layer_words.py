"""Layers side by side: the cells, the differences, and what is said to be gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.layer_words import explained, removed, side_by_side
from distill.rows import LayerCost

pytestmark = pytest.mark.runtime

EMBEDDING = LayerCost("teacher", "fp32", "embedding", 4_000_000, 1_000_000, 0, 0, 0.1, 0.05, batch=1, length=64, runs=9)
LAYER = replace(
    EMBEDDING, layer="encoder.0", bytes=2_000_000, parameters=500_000, products=4, ms=1.0, share=0.45, heads=12,
    neurons=1536, zeros=0.0,
)  # fmt: skip
REST = replace(EMBEDDING, layer="rest", bytes=1000, parameters=0, ms=0.0, share=0.05)
BEFORE = (EMBEDDING, LAYER, replace(LAYER, layer="encoder.1"), REST)
AFTER = tuple(
    replace(row, model="bundle", precision="int8", bytes=row.bytes // 4, int8_products=row.products) for row in
    (EMBEDDING, replace(LAYER, heads=9, neurons=1152, parameters=400_000, ms=0.25, share=0.9, zeros=0.031), REST)
)  # fmt: skip


def test_two_bundles() -> None:
    head, rows = side_by_side([BEFORE, AFTER])
    assert head == ["layer", "heads", "neurons", "MB", "parameters", "int8 products", "zeros", "ms", "of the time"]
    assert rows == [
        ["embedding", "-", "-", "4.00 → 1.00 (-75%)", "1,000,000", "0 of 0", "-", "0.10", "5.0%"],
        [
            "encoder.0", "12 → 9", "1536 → 1152", "2.00 → 0.50 (-75%)", "500,000 → 400,000 (-20%)", "0 of 4 → 4 of 4",
            "0.0% → 3.1%", "1.00 → 0.25 (-75%)", "45.0% → 90.0%",
        ],
        [
            "encoder.1", "12 → -", "1536 → -", "2.00 → - (-100%)", "500,000 → - (-100%)", "0 of 4 → -", "0.0% → -",
            "1.00 → - (-100%)", "45.0% → -",
        ],
        ["rest", "-", "-", "0.00", "0", "0 of 0", "-", "0.00", "5.0%"],
        [
            "all", "-", "-", "8.00 → 1.50 (-81%)", "2,000,000 → 1,400,000 (-30%)", "0 of 8 → 4 of 4", "-",
            "2.10 → 0.35 (-83%)", "100.0%",
        ],
    ]  # fmt: skip


def test_one_bundle_has_no_arrows_and_no_empty_columns() -> None:
    head, rows = side_by_side([[EMBEDDING, REST]])
    assert head == ["layer", "MB", "parameters", "int8 products", "ms", "of the time"]
    assert rows[0] == ["embedding", "4.00", "1,000,000", "0 of 0", "0.10", "5.0%"]


def test_three_bundles_are_compared_with_the_first() -> None:
    _, rows = side_by_side([BEFORE, BEFORE, AFTER])
    assert rows[1][7] == "1.00 → 1.00 → 0.25 (-75%)"


def test_what_was_removed() -> None:
    assert removed(BEFORE, AFTER) == ["encoder: 2 → 1 layers, 24 → 9 heads, 3,072 → 1,152 neurons"]
    assert removed(BEFORE, BEFORE) == []


def test_a_decoder_has_two_kinds_of_heads() -> None:
    decoder = replace(LAYER, layer="decoder.0", heads=8, cross_heads=8)
    memory = replace(LAYER, layer="decoder.memory", heads=None, neurons=None)
    less = replace(decoder, cross_heads=6)
    assert removed([decoder, memory], [less, memory]) == ["decoder: 8 → 6 heads on the source"]
    assert side_by_side([[decoder, memory], [less, memory]])[1][1][1] == "8 + 8 → 8 + 6"


def test_sizes_that_a_graph_does_not_tell_are_not_compared() -> None:
    assert removed(BEFORE, [replace(row, heads=None, neurons=None) for row in BEFORE]) == []


def test_what_is_said_with_the_table() -> None:
    lines = "\n".join(explained([BEFORE, AFTER], {"teacher": 2.1, "bundle": 0.35}))
    assert "1 x 64 tokens, one thread" in lines and "9 rounds" in lines
    assert "teacher: 2.10 ms the fastest run without the profiler" in lines
    assert "WARNING" not in lines and "decoder.memory" not in lines and "zeros" not in lines
    assert "do not say which became which" in lines and "which became" not in "\n".join(explained([AFTER, AFTER], {}))
    assert "as long with them as without" in "\n".join(explained([[replace(LAYER, zeros=0.5)]], {}))
    busy = replace(EMBEDDING, work="text", reason="other processes took 1.3 of 2 core(s)")
    lines = "\n".join(explained([[busy, replace(busy, layer="decoder.memory")]], {}))
    assert "a sentence of about 64 tokens, greedily" in lines and "decoder.memory: keys and values" in lines
    assert "WARNING: measure again on a quiet machine: other processes took 1.3" in lines
