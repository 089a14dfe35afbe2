"""The quality-speed picture as one HTML file: inline SVG, no scripts, nothing fetched, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from bench.compare import quality_word
from bench.layout import BOTTOM, LEFT, LEGEND, LINE, RIGHT, TOP, WIDTH, Layout, Mark, arrange
from bench.pareto import Point, frontier, points
from bench.words import (
    axis_titles,
    colour,
    megabytes,
    ms,
    ms_text,
    picture_note,
    picture_title,
    quality_text,
    tick,
    words_a_second,
)
from bench.words import points as points_text
from distill.errors import DataError
from distill.report import Report

STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --faint: #69707d; --grid: #e6e8ec; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --faint: #9aa2af; --grid: #31363f; --paper: #16181d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } p, li { color: var(--faint); } p { margin: .2rem 0 1rem; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg g text { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-opacity: .8; }
svg .faint { fill: var(--faint); } svg .grid { stroke: var(--grid); } svg .best { stroke: var(--faint); }
.mark:hover circle, .mark:focus circle { fill-opacity: .6; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--faint); font-weight: 600; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }
"""
HEAD = (
    "model",
    "quality [95 %]",
    "difference in points",
    "so it is",
    "p50 ms [95 %]",
    "p95",
    "words a second [95 %]",
    "speedup [95 %]",
    "MB",
    "peak MB",
)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>
<h1>{title}</h1>
<p>{caption}.</p>
{picture}
<div class="wide">{table}</div>
<ul>{notes}</ul>
</body></html>
"""


def page(report: Report) -> str:
    """The whole page.

    Raises:
        DataError: no model has quality, latency and size.
    """
    found = points(report)
    if not found:
        raise DataError("expected a model with quality, latency and size to draw, found none")
    machine = str(report.environment.get("cpu", "unknown processor"))
    return PAGE.format(
        title=escape(picture_title(report)),
        style=STYLE,
        caption=escape(f"{machine}. {picture_note()}"),
        picture=_svg(report, found),
        table=_table(report, found),
        notes="".join(f"<li>{escape(note)}</li>" for note in report.notes),
    )


def _svg(report: Report, found: Sequence[Point]) -> str:
    """The picture."""
    layout = arrange(found)
    best = " ".join(
        f"{layout.x.place(p.speed.value):.1f},{layout.y.place(p.quality.value):.1f}" for p in frontier(found)
    )
    line = f'<polyline class="best" points="{best}" fill="none" stroke-dasharray="4 4"/>'
    marks = "\n".join(_mark(layout, mark) for mark in layout.marks)
    box = f"0 {TOP - 20} {WIDTH} {layout.height - TOP - 10:.0f}"
    legend = [_text(LEFT, LEGEND + LINE * row + 4, name, anchor="start") for row, name in enumerate(layout.legend)]
    parts = "\n".join([_axes(layout, report), line, marks, *legend])
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(picture_title(report))}">\n{parts}\n</svg>'


def _axes(layout: Layout, report: Report) -> str:
    """Grid, tick labels and titles."""
    across, up = axis_titles(report)
    middle = (TOP + BOTTOM) / 2
    lines = [_line(layout.x.place(v), TOP, layout.x.place(v), BOTTOM) for v in layout.x.ticks()]
    lines += [_line(LEFT, layout.y.place(v), RIGHT, layout.y.place(v)) for v in layout.y.ticks()]
    texts = [_text(layout.x.place(v), BOTTOM + 20, tick(v), "faint") for v in layout.x.ticks()]
    texts += [_text(LEFT - 10, layout.y.place(v) + 4, tick(v), "faint", "end") for v in layout.y.ticks()]
    texts.append(_text((LEFT + RIGHT) / 2, BOTTOM + 44, across))
    texts.append(f'<text transform="translate(22 {middle}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    return "\n".join(lines + texts)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    """A line of the grid."""
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    """One line of text."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _mark(layout: Layout, mark: Mark) -> str:
    """A bubble with bars, label, and a title that shows when the pointer rests on it."""
    point, paint = mark.point, colour(mark.point.runtime, mark.point.precision)
    left, right = layout.x.place(point.speed.low), layout.x.place(point.speed.high)
    top, bottom = layout.y.place(point.quality.high), layout.y.place(point.quality.low)
    bars = f"M{left:.1f} {mark.y:.1f}H{right:.1f}M{mark.x:.1f} {top:.1f}V{bottom:.1f}"
    parts = [
        f"<title>{escape(_title(point))}</title>",
        _circle(mark, mark.radius, f'fill="{paint}" fill-opacity=".3" stroke="{paint}"'),
        f'<path d="{bars}" stroke="{paint}" stroke-width="1.4"/>',
        _circle(mark, 2.2, f'fill="{paint}"'),
    ]
    parts += [
        _text(mark.label_x, mark.label_y + 4 + LINE * number, line, "faint" if number else "")
        for number, line in enumerate(mark.label)
    ]
    return f'<g class="mark" tabindex="0">{"".join(parts)}</g>'


def _circle(mark: Mark, radius: float, paint: str) -> str:
    """A circle around a mark's centre."""
    return f'<circle cx="{mark.x:.1f}" cy="{mark.y:.1f}" r="{radius:.1f}" {paint}/>'


def _title(point: Point) -> str:
    """All of a point's numbers, a line each."""
    row, quality = point.latency_row, point.quality_row
    lines = [
        point.name,
        f"{quality.metric} {quality_text(quality)}",
        f"{ms_text(row)} ms",
        f"{megabytes(point.bytes)} MB",
    ]
    if words := words_a_second(row):
        lines.append(f"{words} words a second")
    if row.speedup is not None:
        lines.append(f"{row.speedup:.2f} times the speed of {row.baseline}")
    return "\n".join(lines)


def _table(report: Report, found: Sequence[Point]) -> str:
    """The picture's numbers."""
    peaks = {row.key: row.peak_bytes for row in report.memory}
    head = "".join(f"<th>{escape(title)}</th>" for title in HEAD)
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(_row(point, peaks) for point in found)}</tbody></table>"
    )


def _row(point: Point, peaks: Mapping[tuple[object, ...], int]) -> str:
    """One model."""
    row, quality = point.latency_row, point.quality_row
    cells = [
        quality_text(quality),
        points_text(quality),
        quality_word(quality),
        ms_text(row),
        ms(row.p95_ms),
        words_a_second(row) or "-",
        "" if row.speedup is None else f"{row.speedup:.2f} [{row.speedup_low:.2f}, {row.speedup_high:.2f}]",
        megabytes(point.bytes),
        megabytes(peaks.get((row.model, row.runtime, row.precision, row.method))),
    ]
    dot = f'<span class="dot" style="background:{colour(row.runtime, row.precision)}"></span>'
    body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td>{dot}{escape(point.name)}</td>{body}</tr>"
