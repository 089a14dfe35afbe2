"""Ranges of static int8 on histograms small enough to be worked out by hand, and on what products really read."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.quantization.ranges import AROUND_ZERO, LEVELS, Histogram, find_ranges, least_error, percentile
from compress.quantization.sensitivity import Rounding
from compress.quantization.watch import Watched, products
from distill.recipe import QuantizeRecipe

Ranges = Literal["minmax", "percentile", "mse"]
LOWEST = float(np.finfo(np.float32).min)


def histogram(edges: list[float], counts: list[int]) -> Histogram:
    return Histogram(np.array(counts), np.array(edges, np.float64))


@pytest.mark.parametrize(
    ("share", "symmetric", "expected"),
    [
        (100, False, (-2, 3)),
        (98, False, (-1, 2)),  # a value at each end is 1 % of 100
        (97.9, False, (-1, 2)),  # one and a bit more: the next bins have more values than may be cut
        (90, False, (0, 1)),
        (60, False, (0, 1)),  # 0 is always in it
    ],
)
def test_percentiles_by_hand(share: float, symmetric: bool, expected: tuple[float, float]) -> None:
    seen = histogram([-2, -1, 0, 1, 2, 3], [1, 4, 90, 4, 1])
    assert percentile(seen, share, symmetric) == expected


@pytest.mark.parametrize(("share", "high"), [(100, 4), (99, 3), (95, 2), (90, 2), (89, 1)])
def test_percentiles_of_magnitudes_cut_the_upper_end_alone(share: float, high: float) -> None:
    assert percentile(histogram([0, 1, 2, 3, 4], [90 - 1, 6, 4, 1]), share, True) == (0, high)


def test_least_error_by_hand() -> None:
    # a million values below 1 and one about 2.5: cutting at 1 costs 1.5^2 = 2.25, steps of 4 / 255 instead of 1 / 255
    # cost a million times (4^2 - 1) / 255^2 / 12 = 19.2
    assert least_error(histogram([0, 1, 4], [1_000_000, 1])) == (0, 1)
    # of twenty the cut costs 45
    assert least_error(histogram([0, 1, 4], [1_000_000, 20])) == (0, 4)
    # around zero a step is a 127th, and larger ones cost 77.5
    assert least_error(histogram([0, 1, 4], [1_000_000, 20]), symmetric=True) == (0, 1)


@given(st.lists(st.integers(0, 1000), min_size=6, max_size=6), st.integers(0, 6), st.booleans())
def test_least_error_is_the_least_of_all(counts: list[int], negative: int, symmetric: bool) -> None:
    edges = np.arange(7.0) - (0 if symmetric else negative)
    seen = histogram(list(edges), counts)

    def error(low: float, high: float) -> float:
        centres = edges[:-1] + 0.5
        step = (high - low) / (AROUND_ZERO if symmetric else LEVELS)
        inside = (centres > low) & (centres < high)
        beyond = np.maximum(low - centres, 0) + np.maximum(centres - high, 0)
        return float((np.array(counts) * np.where(inside, step**2 / 12, beyond**2)).sum())

    lows = [0.0] if symmetric else edges[edges <= 0]
    least = min(error(low, high) for low in lows for high in edges[edges >= 0])
    assert error(*least_error(seen, symmetric)) == pytest.approx(least, abs=1e-6)


def watched(values: NDArray[np.float32]) -> Watched:
    """A product that reads what it is given, and another activation, which is masked by the lowest float."""
    nodes = [
        helper.make_node("MatMul", ["x", "w.weight"], ["y"], name="w"),
        helper.make_node("Add", ["y", "mask"], ["z"], name="mask"),
        helper.make_node("Transpose", ["z"], ["turned"], name="turn"),
        helper.make_node("MatMul", ["turned", "x"], ["out"], name="of activations"),
    ]
    stored = {"w.weight": np.ones((2, 2), np.float32), "mask": np.full(2, LOWEST, np.float32)}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Watched(model, products(model), [{"x": part} for part in np.split(values, 10)])


SPREAD = np.random.default_rng(3).normal(size=(2000, 2)).astype(np.float32)
WITH_ONE = np.where(np.arange(4000).reshape(2000, 2) == 77, np.float32(40), SPREAD)


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        (QuantizeRecipe(), SPREAD.min(), 40),
        (QuantizeRecipe(device="tensorrt"), -40, 40),
        (QuantizeRecipe(ranges="percentile", percentile=99), -2.58, 2.58),
        (QuantizeRecipe(ranges="percentile", percentile=99, device="tensorrt"), -2.58, 2.58),
    ],
)
def test_ranges_are_those_of_what_products_read(settings: QuantizeRecipe, low: float, high: float) -> None:
    assert find_ranges(watched(WITH_ONE), settings) == {"x": pytest.approx((low, high), rel=0.08)}


@pytest.mark.parametrize("device", ["cpu", "tensorrt"])
def test_the_least_error_is_less_than_that_of_other_ranges(device: Literal["cpu", "tensorrt"]) -> None:
    values = np.concatenate([np.where(np.arange(4000) == 77, 9, SPREAD.reshape(-1)), np.tile(SPREAD.reshape(-1), 40)])
    read = watched(values.reshape(-1, 2).astype(np.float32))

    def squared(ranges: Ranges, percentile: float = 99.99) -> float:
        found = find_ranges(read, QuantizeRecipe(ranges=ranges, percentile=percentile, device=device))
        rounded = Rounding(found, device == "tensorrt").states("x", values)
        return float(np.square(rounded - values).sum())

    others = [squared("minmax"), squared("percentile"), squared("percentile", 99)]
    assert squared("mse") < min(others)


def test_nothing_but_zeros() -> None:
    zeros = np.zeros((10, 2), np.float32)
    every: tuple[Ranges, ...] = ("minmax", "percentile", "mse")
    for ranges in every:
        low, high = find_ranges(watched(zeros), QuantizeRecipe(ranges=ranges))["x"]
        assert low == 0 and 0 <= high <= 1
