"""Intervals of medians, and the words that they allow."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.compare import Interval, fastest, median_interval, quality_word, speed_word, speedup
from distill.rows import Latency, Quality

pytestmark = pytest.mark.runtime
ROW = Latency("a", "torch", "fp32", "cpu", 1, 1, 64, 10.0, 11.0, 12.0, 100.0, 50)
SCORE = Quality("a", "torch", "fp32", "test", "accuracy", 0.8, 0.7, 0.9, 50, "s")

# n, which of the ordered values bound the median with 95 % (tables of the sign test)
RANKS = [(1, 1, 1), (5, 1, 5), (6, 1, 6), (8, 1, 8), (9, 2, 8), (12, 3, 10), (20, 6, 15), (50, 18, 33), (100, 40, 61)]


@pytest.mark.parametrize(("n", "low", "high"), RANKS)
def test_median_interval_by_the_sign_test(n: int, low: int, high: int) -> None:
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    assert median_interval(values) == Interval((n + 1) / 2, low, high)


def test_median_interval_covers_what_it_promises() -> None:
    """Of 2 000 samples of 15 skewed values at least 95 % hold the true median in their interval."""
    samples = np.random.default_rng(0).exponential(size=(2000, 15))
    found = [median_interval(sample) for sample in samples]
    assert np.mean([each.low <= math.log(2) <= each.high for each in found]) > 0.945


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=40))
def test_a_model_is_as_fast_as_itself(values: list[float]) -> None:
    times = np.asarray(values)
    assert speedup(times, times) == Interval(1, 1, 1)
    doubled = speedup(2 * times, times)
    assert (doubled.low, doubled.value, doubled.high) == pytest.approx((2, 2, 2))


def test_pairing_takes_out_what_slows_both_down() -> None:
    drift = np.linspace(1, 10, 20)  # the machine becomes ten times slower
    assert speedup(30 * drift, 10 * drift) == Interval(pytest.approx(3), pytest.approx(3), pytest.approx(3))


WORDS = [
    (2.0, 1.5, 2.5, None, "faster"),
    (0.5, 0.4, 0.9, None, "slower"),
    (1.1, 0.9, 1.3, None, "not told apart"),
    (1.1, 1.0, 1.3, None, "not told apart"),
    (9.0, 8.0, 10.0, "the machine was busy", "not judged"),
    (None, None, None, None, ""),
]


@pytest.mark.parametrize(("value", "low", "high", "reason", "word"), WORDS)
def test_speed_words(value: float, low: float, high: float, reason: str | None, word: str) -> None:
    assert speed_word(replace(ROW, speedup=value, speedup_low=low, speedup_high=high, reason=reason)) == word


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.03, "better"), (-0.03, -0.01, "worse"), (-0.01, 0.02, "not told apart"), (0.0, 0.0, "not told apart")],
)
def test_quality_words(low: float, high: float, word: str) -> None:
    assert quality_word(replace(SCORE, difference=0.0, difference_low=low, difference_high=high)) == word
    assert quality_word(SCORE) == ""


def test_no_fastest_where_intervals_meet() -> None:
    quick = replace(ROW, model="quick", p50_ms=5.0, p50_low_ms=4.5, p50_high_ms=5.5)
    close = replace(ROW, model="close", p50_ms=5.6, p50_low_ms=5.4, p50_high_ms=6.0)
    slow = replace(ROW, model="slow", p50_ms=9.0, p50_low_ms=8.0, p50_high_ms=9.5)
    assert fastest([slow, quick]) == (quick,)
    assert fastest([quick, close, slow]) == (quick, close)
    assert fastest([quick, ROW]) == (quick, ROW)  # a row without an interval could be anything
    assert fastest([quick, replace(slow, reason="busy")]) == (quick, replace(slow, reason="busy"))
    assert fastest([]) == ()
