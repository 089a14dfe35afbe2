"""The quality-speed picture as a PNG: bubbles as large as their files, bars for both 95 % intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from bench.layout import BOTTOM, LEFT, LEGEND, LINE, RIGHT, TOP, WIDTH, Layout, Mark, arrange
from bench.pareto import frontier, points
from bench.words import axis_titles, colour, picture_note, picture_title, tick
from distill.errors import DataError
from distill.report import Report

DPI = 100
INK, FAINT, GRID = "#1f2430", "#69707d", "#e6e8ec"


def write_png(report: Report, path: Path) -> None:
    """Draw the picture into `path`.

    Raises:
        DataError: no model has quality, latency and size.
    """
    found = points(report)
    if not found:
        raise DataError("expected a model with quality, latency and size to draw, found none")
    layout = arrange(found)
    figure = Figure(figsize=(WIDTH / DPI, layout.height / DPI), dpi=2 * DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(layout.height, 0)
    _draw_axes(axes, layout, report)
    best = [(layout.x.place(p.speed.value), layout.y.place(p.quality.value)) for p in frontier(found)]
    axes.plot([x for x, _ in best], [y for _, y in best], color=FAINT, linewidth=1, linestyle=(0, (4, 4)), zorder=2)
    for mark in layout.marks:
        _draw_mark(axes, layout, mark)
    figure.savefig(path, metadata={"Software": None})


def _draw_axes(axes: Any, layout: Layout, report: Report) -> None:
    """Titles, grid and tick labels."""
    across, up = axis_titles(report)
    for value in layout.x.ticks():
        x = layout.x.place(value)
        axes.plot([x, x], [TOP, BOTTOM], color=GRID, linewidth=0.8, zorder=0)
        _text(axes, x, BOTTOM + 16, tick(value), FAINT)
    for value in layout.y.ticks():
        y = layout.y.place(value)
        axes.plot([LEFT, RIGHT], [y, y], color=GRID, linewidth=0.8, zorder=0)
        _text(axes, LEFT - 10, y, tick(value), FAINT, align="right")
    _text(axes, (LEFT + RIGHT) / 2, BOTTOM + 40, across, INK)
    _text(axes, 22, (TOP + BOTTOM) / 2, up, INK, rotation=90)
    _text(axes, LEFT, 28, picture_title(report), INK, align="left", size=16)
    _text(axes, LEFT, 54, picture_note(), FAINT, align="left")
    for number, line in enumerate(layout.legend):
        _text(axes, LEFT, LEGEND + LINE * number, line, INK, align="left")
    _text(axes, LEFT, layout.height - 16, str(report.environment.get("cpu", "")), FAINT, align="left", size=10)


def _draw_mark(axes: Any, layout: Layout, mark: Mark) -> None:
    """A bubble, its two bars and its label."""
    paint, point = colour(mark.point.runtime, mark.point.precision), mark.point
    across = [layout.x.place(point.speed.low), layout.x.place(point.speed.high)]
    up = [layout.y.place(point.quality.low), layout.y.place(point.quality.high)]
    axes.plot(across, [mark.y, mark.y], color=paint, linewidth=1.4, zorder=3)
    axes.plot([mark.x, mark.x], up, color=paint, linewidth=1.4, alpha=0.55, zorder=3)
    size = (2 * mark.radius * 72 / DPI) ** 2
    axes.scatter([mark.x], [mark.y], s=size, color=paint, alpha=0.3, linewidths=0, zorder=2)
    axes.scatter([mark.x], [mark.y], s=size, facecolors="none", edgecolors=paint, linewidths=1.4, zorder=3)
    axes.scatter([mark.x], [mark.y], s=10, color=paint, linewidths=0, zorder=4)
    for number, line in enumerate(mark.label):
        _text(axes, mark.label_x, mark.label_y + LINE * number, line, FAINT if number else INK)


def _text(
    axes: Any, x: float, y: float, text: str, paint: str, align: str = "center", size: float = 12, rotation: float = 0
) -> None:
    """One line of text, `size` in pixels; a dollar sign is a dollar sign."""
    halo = withStroke(linewidth=2.5, foreground="white", alpha=0.8)  # a bar may pass behind a label
    axes.text(
        x, y, text, color=paint, ha=align, va="center", fontsize=size * 72 / DPI, rotation=rotation,
        parse_math=False, zorder=5, path_effects=[halo],
    )  # fmt: skip
