"""Which of two is better, or that it cannot be said: ratios and differences with intervals, and words only for those.

The interval of a median comes from order statistics: the k-th smallest and k-th largest of n values enclose the median
with a probability that follows from the binomial distribution alone (David & Nagaraja, Order Statistics, 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.metrics import CONFIDENCE
from distill.rows import Latency, Quality

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


def median_interval(values: Values) -> Interval:
    """The median of independent `values` `(n,)` and its interval; below n = 6 all values, which is 94 % at n = 5."""
    ordered = np.sort(values)
    rank = _rank(len(ordered))
    return Interval(float(np.median(ordered)), float(ordered[rank]), float(ordered[-1 - rank]))


def speedup(slow: Values, fast: Values) -> Interval:
    """How many times as fast `fast` is: the median over rounds of the ratio of times, both `(rounds,)`.

    The two were timed one after the other in each round, so what slows the machine down for a while cancels out.
    """
    return median_interval(slow / fast)


def speed_word(row: Latency) -> str:
    """What may be said about a speedup: nothing where the machine was busy or the interval holds 1."""
    if row.speedup_low is None or row.speedup_high is None:
        return ""
    if row.reason:
        return "not judged"
    if row.speedup_low > 1:
        return "faster"
    return "slower" if row.speedup_high < 1 else "not told apart"


def quality_word(row: Quality) -> str:
    """What may be said about a difference in quality to the baseline."""
    if row.difference_low is None or row.difference_high is None:
        return ""
    if row.difference_low > 0:
        return "better"
    return "worse" if row.difference_high < 0 else "not told apart"


def fastest(rows: Sequence[Latency]) -> tuple[Latency, ...]:
    """The rows of one cell that may be the fastest: the lowest median, and all whose interval meets its interval.

    All of them where the machine was too busy to tell.
    """
    if not rows or any(row.reason for row in rows):
        return tuple(rows)
    spans = [_span(row) for row in rows]
    lowest = min(spans, key=lambda span: span.value)
    return tuple(row for row, span in zip(rows, spans, strict=True) if span.overlaps(lowest))


def _span(row: Latency) -> Interval:
    """A row's median with its interval; a row that has none could be anything."""
    low = row.p50_low_ms if row.p50_low_ms is not None else 0.0
    high = row.p50_high_ms if row.p50_high_ms is not None else math.inf
    return Interval(row.p50_ms, low, high)


def _rank(n: int) -> int:
    """The largest k for which the values number k from either end enclose the median with 95 %."""
    outside, rank = 0.0, 0
    for k in range((n + 1) // 2):
        outside += 2 * math.comb(n, k) / 2**n
        if outside > 1 - CONFIDENCE:
            break
        rank = k
    return rank
