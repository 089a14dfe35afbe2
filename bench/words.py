"""Numbers and names as people read them, the same in tables and pictures."""

from __future__ import annotations

from distill.metrics import Score
from distill.report import Latency, Quality, Report
from distill.task import highest

WARNING = "WARNING: "


def name_of(row: object) -> str:
    """Model, runtime and precision of any row."""
    parts = [getattr(row, key, None) for key in ("model", "runtime", "precision", "method")]
    return " ".join(part for part in parts if part)


def shown_rows(report: Report) -> list[Latency]:
    """The cell that stands for all: smallest batch, fewest threads, first search; words written, else ids.

    Of ids the middle length.
    """
    rows = [row for row in report.latency if row.device == "cpu"]
    writing = [row for row in rows if row.words_per_second is not None]
    rows = writing or [row for row in rows if row.work == "ids"]
    if not rows:
        return []
    batch, threads = min(row.batch for row in rows), min(row.threads for row in rows)
    lengths = sorted({row.length for row in rows})
    cell = (rows[0].work, "cpu", threads, batch, lengths[len(lengths) // 2], rows[0].beams)
    return [row for row in rows if row.cell == cell]


def cell_of(row: Latency) -> str:
    """Batch, length, threads and search of a row."""
    about = "~" * (row.work == "text")
    parts = [f"batch {row.batch}", f"{about}{row.length} tokens", f"{row.threads} thread{'s' * (row.threads > 1)}"]
    return ", ".join(parts + ([search_of(row)] if row.beams else []))


def search_of(row: Latency | Quality) -> str:
    """How translations were looked for."""
    return "greedy" if row.beams == 1 else f"{row.beams} beams"


def score(metric: str, value: float, digits: int = 4) -> str:
    """A score with so many digits of a share; a score of up to 100 has two less."""
    return f"{value:.{digits if highest(metric) == 1 else digits - 2}f}"


def quality_text(row: Quality) -> str:
    """A score with its interval."""
    value, low, high = (score(row.metric, each) for each in (row.value, row.low, row.high))
    return f"{value} [{low}, {high}]"


def ms_text(row: Latency) -> str:
    """A median with its interval."""
    return f"{ms(row.p50_ms)} [{ms(row.p50_low_ms)}, {ms(row.p50_high_ms)}]"


def score_line(found: Score) -> str:
    """A score with all that belongs to it."""
    low, high = (score(found.metric, value) for value in (found.low, found.high))
    return (
        f"{found.metric} {score(found.metric, found.value)}  95 % interval {low} to {high}  n={found.n}  "
        f"({found.signature})"
    )


def points(row: Quality) -> str:
    """A difference in hundredths of the highest score, with its interval."""
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return ""
    value, low, high = (
        100 / highest(row.metric) * each for each in (row.difference, row.difference_low, row.difference_high)
    )
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


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


def words_a_second(row: Latency) -> str:
    """What is written in a second, with its interval; nothing where nothing is written."""
    if row.words_per_second is None or row.words_per_second_low is None or row.words_per_second_high is None:
        return ""
    return f"{row.words_per_second:.0f} [{row.words_per_second_low:.0f}, {row.words_per_second_high:.0f}]"


def picture_title(report: Report) -> str:
    """What the picture shows."""
    speed = "latency" if shown_rows(report)[0].words_per_second is None else "words a second"
    return f"{report.name}: quality against {speed}"


def axis_titles(report: Report) -> tuple[str, str]:
    """What the picture's axes measure: speed in one cell, quality on one split."""
    row, quality = shown_rows(report)[0], report.quality[0]
    speed = "median latency in ms" if row.words_per_second is None else "words a second"
    return (
        f"{speed}, {cell_of(row)} ({row.device}; log scale)",
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
    return f"{round(value, 6):g}"
