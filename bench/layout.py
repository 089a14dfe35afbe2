"""Where everything of the quality-speed picture goes, in pixels from the top left; both pictures draw from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.pareto import Point

WIDTH, HEIGHT = 960, 580
LEFT, RIGHT, TOP, BOTTOM = 84, 936, 84, 500
LARGEST = 34.0
"""Radius of the largest bubble; area goes with bytes."""
SMALLEST = 4.0
CROWDED = 7
"""From so many models on bubbles are half as large and have numbers, whose names stand below the picture."""
LEGEND = BOTTOM + 66
"""Where the first of these names stands."""
CHARACTER, LINE = 6.7, 15.0
"""Room that a letter and a line of a label take, at 12 pixels."""
STEPS = (1.0, 2.0, 5.0)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Axis:
    """A range of values laid on a range of pixels, in even or in logarithmic steps."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the range."""
        if self.logarithmic:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            candidates = [step * 10.0**exponent for exponent in exponents for step in STEPS]
        else:
            step = _round_step((self.high - self.low) / 5)
            candidates = [
                step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
            ]
        return [value for value in candidates if self.low <= value <= self.high]


@dataclass(frozen=True)
class Mark:
    """One point on the picture: centre, radius, its label and the middle of the label's first line."""

    point: Point
    x: float
    y: float
    radius: float
    label: tuple[str, ...]
    label_x: float
    label_y: float


@dataclass(frozen=True)
class Layout:
    """The picture: two axes, the marks, largest first, so that small ones are drawn on top, and what numbers mean."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    legend: tuple[str, ...] = ()

    @property
    def height(self) -> float:
        """Pixels down to the end of the legend."""
        return HEIGHT + LINE * (len(self.legend) + 1 if self.legend else 0)


def arrange(found: Sequence[Point]) -> Layout:
    """Lay out at least one point."""
    x = Axis(
        min(point.speed.low for point in found) / 1.9,
        max(point.speed.high for point in found) * 1.9,
        LEFT,
        RIGHT,
        True,
    )
    low, high = min(p.quality.low for p in found), max(p.quality.high for p in found)
    room = 0.12 * (high - low) or 0.05
    y = Axis(low - room, high + room, BOTTOM, TOP, False)
    crowded = len(found) >= CROWDED
    names = [label_lines(point) for point in found]
    legend = tuple(f"{number}  {', '.join(lines)}" for number, lines in enumerate(names, 1)) if crowded else ()
    labels = [(str(number),) for number in range(1, len(found) + 1)] if crowded else names
    largest, most = LARGEST / 2 if crowded else LARGEST, max(point.bytes for point in found)
    marks: list[Mark] = []
    bubbles = [_bubble(point, x, y, largest, most) for point in found]
    taken = [(cx - r, cy - r, cx + r, cy + r) for cx, cy, r in bubbles]
    for point, label, (cx, cy, radius) in zip(found, labels, bubbles, strict=True):
        own = (cx - radius, cy - radius, cx + radius, cy + radius)
        box = _free_box(label, cx, cy, radius, [each for each in taken if each != own])
        taken.append(box)
        marks.append(Mark(point, cx, cy, radius, label, (box[0] + box[2]) / 2, box[1] + LINE / 2))
    return Layout(x, y, tuple(sorted(marks, key=lambda mark: -mark.radius)), legend)


def label_lines(point: Point) -> tuple[str, ...]:
    """What stands beside a bubble, or below the picture."""
    return point.name, f"{point.bytes / 1e6:.1f} MB"


def _bubble(point: Point, x: Axis, y: Axis, largest: float, most: int) -> tuple[float, float, float]:
    """Centre and radius; a very small file still can be seen."""
    radius = max(SMALLEST, largest * math.sqrt(point.bytes / most)) if most else SMALLEST
    return x.place(point.speed.value), y.place(point.quality.value), radius


def _free_box(lines: Sequence[str], x: float, y: float, radius: float, taken: Sequence[Box]) -> Box:
    """The nearest place for a label that covers nothing, or the one straight above."""
    width, height = CHARACTER * max(map(len, lines)), LINE * len(lines)
    gap = radius + 5
    places = [(x, y - gap - height / 2), (x, y + gap + height / 2)]
    places += [(x - gap - width / 2, y), (x + gap + width / 2, y)]
    places += [
        (x + side * width / 2, y + way * (gap + height * step))
        for step in (1, 2, 3)
        for way in (-1, 1)
        for side in (-1, 1)
    ]
    boxes = [(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2) for cx, cy in places]
    return next((box for box in boxes if _inside(box) and not any(_meet(box, other) for other in taken)), boxes[0])


def _inside(box: Box) -> bool:
    """Whether a box lies within the axes."""
    left, top, right, bottom = box
    return left >= LEFT and top >= TOP and right <= RIGHT and bottom <= BOTTOM


def _meet(a: Box, b: Box) -> bool:
    """Whether two boxes overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _round_step(step: float) -> float:
    """The next larger of 1, 2, 5, 10, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (*STEPS, 10.0) if power * factor >= step * (1 - 1e-9))
