"""How latency grows with the length of texts and with the size of batches: one line a model, as a PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.compare import Interval
from bench.plots import FAINT, GRID, INK
from bench.words import colour, name_of, search_of, tick
from distill.report import Latency, Report

LEAST = 3
"""Points of a line that is worth drawing."""
MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Curve:
    """One model's medians in ms, for each size of what grows."""

    name: str
    runtime: str
    precision: str
    sizes: tuple[int, ...]
    latency: tuple[Interval, ...]


@dataclass(frozen=True)
class Panel:
    """Curves over one thing that grows, while all else stays as `still` says."""

    across: str
    still: str
    curves: tuple[Curve, ...]


def panels(report: Report) -> list[Panel]:
    """Latency against length and against batch, on the CPU with the fewest threads; what is too short is left out."""
    rows = [row for row in report.latency if row.device == "cpu"]
    threads = min((row.threads for row in rows), default=0)
    ids = [row for row in rows if row.threads == threads and row.work == "ids"]
    texts = [row for row in rows if row.threads == threads and row.work != "ids"]
    found = [
        _panel("tokens a row", ids, _length, lambda row: (row.batch, f"batch {row.batch}")),
        _panel("rows a batch", ids, _batch, lambda row: (row.length, f"{row.length} tokens")),
        _panel("real texts a batch", texts, _batch, lambda row: (row.beams or 1, search_of(row) if row.beams else "")),
    ]
    return [panel for panel in found if panel is not None]


def _length(row: Latency) -> int:
    """Tokens of each row."""
    return row.length


def _batch(row: Latency) -> int:
    """Rows at once."""
    return row.batch


def _panel(
    across: str, rows: Sequence[Latency], size: Callable[[Latency], int], still: Callable[[Latency], tuple[int, str]]
) -> Panel | None:
    """Curves over a size, at the least of what stays; None where they would be too short."""
    least = min(map(still, rows), default=(0, ""))
    chosen = sorted((row for row in rows if still(row) == least), key=size)
    names = dict.fromkeys(map(name_of, chosen))
    curves = (_curve([row for row in chosen if name_of(row) == name], size) for name in names)
    kept = tuple(curve for curve in curves if len(curve.sizes) >= LEAST)
    if not kept:
        return None
    threads = f"{chosen[0].threads} thread{'s' * (chosen[0].threads > 1)}"
    return Panel(across, ", ".join(part for part in (least[1], threads) if part), kept)


def _curve(rows: Sequence[Latency], size: Callable[[Latency], int]) -> Curve:
    """One model's rows, which are in order."""
    first = rows[0]
    spans = tuple(Interval(row.p50_ms, row.p50_low_ms or row.p50_ms, row.p50_high_ms or row.p50_ms) for row in rows)
    return Curve(name_of(first), first.runtime, first.precision, tuple(map(size, rows)), spans)


def write_curves(found: Sequence[Panel], path: Path, title: str) -> None:
    """Draw panels side by side into `path`; the dashed line grows in proportion."""
    figure = Figure(figsize=(6.2 * len(found), 5), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, color=INK, x=0.01, ha="left", parse_math=False)
    for axes, panel in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        _draw(axes, panel)
    figure.savefig(path, metadata={"Software": None})


def _draw(axes: Any, panel: Panel) -> None:
    """One panel: both scales are logarithmic, so that what grows in proportion is straight."""
    for curve, marker in zip(panel.curves, MARKERS * len(panel.curves), strict=False):
        middle = [each.value for each in curve.latency]
        reach = [
            [each.value - each.low for each in curve.latency], [each.high - each.value for each in curve.latency]
        ]  # fmt: skip
        axes.errorbar(
            curve.sizes, middle, yerr=reach, label=curve.name, color=colour(curve.runtime, curve.precision),
            marker=marker, markersize=4, linewidth=1.3, capsize=2,
        )  # fmt: skip
    first = panel.curves[-1]
    start = first.latency[0].value / first.sizes[0]
    axes.plot(first.sizes, [start * size for size in first.sizes], color=FAINT, linestyle=(0, (4, 4)), linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted({size for curve in panel.curves for size in curve.sizes})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.grid(color=GRID)
    axes.set_xlabel(panel.across, color=INK)
    axes.set_ylabel(f"median latency in ms ({panel.still})", color=INK)
    legend = axes.legend(fontsize=7, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
