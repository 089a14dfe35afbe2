"""Quality against latency: one point a model, with both intervals and its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.compare import Interval
from bench.words import name_of, shown_rows
from distill.report import Latency, Quality, Report


@dataclass(frozen=True)
class Point:
    """One model: latency in ms, quality as its metric gives it."""

    name: str
    runtime: str
    precision: str
    latency: Interval
    quality: Interval
    bytes: int
    latency_row: Latency
    quality_row: Quality


def points(report: Report) -> list[Point]:
    """The models that have a quality, a latency in the shown cell, and a size, in the order they were measured."""
    quality = {name_of(row): row for row in report.quality}
    sizes = {name_of(row): row.bytes for row in report.size}
    rows = [row for row in shown_rows(report) if name_of(row) in quality and name_of(row) in sizes]
    found = [_point(row, quality[name_of(row)], sizes[name_of(row)]) for row in rows]
    return [point for point in found if _finite(point.latency) and _finite(point.quality)]


def _point(latency: Latency, quality: Quality, size: int) -> Point:
    """One model's three numbers; a latency without an interval is drawn without one."""
    low, high = latency.p50_low_ms, latency.p50_high_ms
    return Point(
        name=name_of(latency),
        runtime=latency.runtime,
        precision=latency.precision,
        latency=Interval(latency.p50_ms, low or latency.p50_ms, high or latency.p50_ms),
        quality=Interval(quality.value, quality.low, quality.high),
        bytes=size,
        latency_row=latency,
        quality_row=quality,
    )


def _finite(interval: Interval) -> bool:
    """Whether an interval can be drawn."""
    return all(math.isfinite(value) for value in (interval.value, interval.low, interval.high))


def frontier(found: Sequence[Point]) -> list[Point]:
    """The points, fastest first, than which none measured both faster and at least as good; of the values alone."""
    kept: list[Point] = []
    for point in sorted(found, key=lambda each: (each.latency.value, -each.quality.value)):
        if not kept or point.quality.value > kept[-1].quality.value:
            kept.append(point)
    return kept
