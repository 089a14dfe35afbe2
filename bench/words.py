"""Numbers and names as people read them, the same in tables and pictures."""

from __future__ import annotations

from distill.report import Latency, Quality, Report


def name_of(row: object) -> str:
    """Model, runtime and precision of any row."""
    parts = [getattr(row, key, None) for key in ("model", "runtime", "precision", "method")]
    return " ".join(part for part in parts if part)


def shown_rows(report: Report) -> list[Latency]:
    """The cell that stands for all: ids, batch 1, fewest threads, middle length."""
    rows = [row for row in report.latency if row.work == "ids" and row.device == "cpu"]
    if not rows:
        return []
    batch, threads = min(row.batch for row in rows), min(row.threads for row in rows)
    lengths = sorted({row.length for row in rows})
    cell = ("ids", "cpu", threads, batch, lengths[len(lengths) // 2])
    return [row for row in rows if row.cell == cell]


def cell_of(row: Latency) -> str:
    """Batch, length and threads of a row."""
    return f"batch {row.batch}, {row.length} tokens, {row.threads} thread{'s' * (row.threads > 1)}"


def points(row: Quality) -> str:
    """A difference in hundredths, with its interval."""
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return ""
    return f"{100 * row.difference:+.2f} [{100 * row.difference_low:+.2f}, {100 * row.difference_high:+.2f}]"


def times(row: Latency) -> str:
    """A speedup with its interval."""
    if row.speedup is None or row.speedup_low is None or row.speedup_high is None:
        return ""
    return f"{row.speedup:.2f} times [{row.speedup_low:.2f}, {row.speedup_high:.2f}]"


def ms(value: float | None) -> str:
    """Milliseconds with three figures that mean something."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(count: int | None) -> str:
    """Bytes as megabytes of a million."""
    return "-" if count is None else f"{count / 1e6:.1f}"


def axis_titles(report: Report) -> tuple[str, str]:
    """What the picture's axes measure: latency in one cell, quality on one split."""
    row, quality = shown_rows(report)[0], report.quality[0]
    return (
        f"median latency in ms, {cell_of(row)} ({row.device}; log scale)",
        f"{quality.metric} ({quality.split}, n = {quality.n})",
    )


def picture_note() -> str:
    """How to read the picture."""
    return (
        "bubble area: bytes on disk · bars: 95 % intervals; where they overlap no order is claimed · "
        "dashed: frontier of the measured values"
    )


def colour(runtime: str, precision: str) -> str:
    """One colour a runtime, another one for its int8; told apart by the colour-blind too (Okabe & Ito)."""
    if runtime == "torch":
        return "#d55e00"
    return "#009e73" if precision == "int8" else "#0072b2"


def tick(value: float) -> str:
    """A round value without needless zeros."""
    return f"{value:g}"
