"""Our times over those of other engines as a picture: a line of dots for each work, and its goal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.plots import FAINT, GRID, INK
from bench.words import tick
from compress.peer_goals import GOALS, PEERS, alike
from distill.report import Latency, Report

PAINTS = {"openvino": "#0072b2", "ctranslate2": "#cc79a7", "optimum": "#e69f00", "torch": "#d55e00"}
"""Told apart by the colour-blind too (Okabe & Ito)."""
RATIOS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def ratios(report: Report) -> dict[str, list[Latency]]:
    """For each work with a goal the rows of other engines that ran beside ours; works that nobody ran are left out."""
    found = {work: [row for row in alike(report.latency, work) if _is_other(row)] for work in GOALS}
    return {work: others for work, others in found.items() if others}


def _is_other(row: Latency) -> bool:
    """Whether a row is another engine's, in int8 or in torch, and was compared with ours."""
    other = row.runtime == "torch" or (row.runtime in PEERS and row.precision == "int8")
    return other and row.speedup is not None


def write_ratios(found: dict[str, list[Latency]], path: Path) -> None:
    """Draw what `ratios` found into `path`: our time over theirs, with intervals; left of 1 ours is the faster one."""
    figure = Figure(figsize=(9, 1.4 + 0.34 * len(found)), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axvline(1, color=FAINT, linewidth=1)
    for place, (work, others) in enumerate(found.items()):
        name = "goal" if place == 0 else "_"
        axes.plot(GOALS[work], place, "|", color=INK, markersize=13, markeredgewidth=1.6, label=name)
        for row in others:
            _draw(axes, row, place)
    for engine in PAINTS:
        axes.plot([], [], "o", color=PAINTS[engine], markersize=5, label=engine)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(RATIOS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.set_xlabel("our int8 time over theirs (torch: float32), one thread; left of 1 ours is faster", color=INK)
    axes.legend(fontsize=8, frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(path, metadata={"Software": None})


def _draw(axes: Any, row: Latency, place: int) -> None:
    """One engine's dot and its 95 % interval."""
    value = row.speedup or 0
    ends = [[value - (row.speedup_low or value)], [(row.speedup_high or value) - value]]
    axes.errorbar(
        [value], [place], xerr=ends, fmt="o", color=PAINTS[row.runtime], markersize=5, linewidth=1.3, capsize=2
    )
