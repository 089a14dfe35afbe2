"""Quality against speed: one point a model, with both intervals and its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.compare import Interval
from bench.words import name_of, shown_rows
from distill.report import Latency, Quality, Report


@dataclass(frozen=True)
class Point:
    """One model: its speed, quality as its metric gives it. Speed is the latency in ms, or the words a second."""

    name: str
    runtime: str
    precision: str
    speed: Interval
    quality: Interval
    bytes: int
    latency_row: Latency
    quality_row: Quality

    @property
    def seconds(self) -> float:
        """What grows as the model gets slower: milliseconds, or seconds a word."""
        return self.speed.value if self.latency_row.words_per_second is None else 1 / max(self.speed.value, 1e-9)


def points(report: Report) -> list[Point]:
    """The models that have a quality, a latency in the shown cell, and a size, in the order they were measured."""
    quality = {name_of(row): row for row in reversed(report.quality)}  # the first of several metrics
    sizes = {name_of(row): row.bytes for row in report.size}
    rows = [row for row in shown_rows(report) if name_of(row) in quality and name_of(row) in sizes]
    found = [_point(row, quality[name_of(row)], sizes[name_of(row)]) for row in rows]
    return [point for point in found if _finite(point.speed) and _finite(point.quality)]


def _point(latency: Latency, quality: Quality, size: int) -> Point:
    """One model's three numbers; a latency without an interval is drawn without one."""
    return Point(
        name=name_of(latency),
        runtime=latency.runtime,
        precision=latency.precision,
        speed=_speed(latency),
        quality=Interval(quality.value, quality.low, quality.high),
        bytes=size,
        latency_row=latency,
        quality_row=quality,
    )


def _speed(row: Latency) -> Interval:
    """What the picture shows of a row's speed."""
    if row.words_per_second is not None:
        value, low, high = row.words_per_second, row.words_per_second_low, row.words_per_second_high
    else:
        value, low, high = row.p50_ms, row.p50_low_ms, row.p50_high_ms
    return Interval(value, low or value, high or value)


def _finite(interval: Interval) -> bool:
    """Whether an interval can be drawn."""
    return all(math.isfinite(value) for value in (interval.value, interval.low, interval.high))


def frontier(found: Sequence[Point]) -> list[Point]:
    """The points, fastest first, than which none measured both faster and at least as good; of the values alone."""
    kept: list[Point] = []
    for point in sorted(found, key=lambda each: (each.seconds, -each.quality.value)):
        if not kept or point.quality.value > kept[-1].quality.value:
            kept.append(point)
    return kept
