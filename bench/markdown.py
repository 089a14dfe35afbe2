"""The report as a page of tables, for people. A word like "faster" stands only where the intervals allow it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from bench.compare import fastest, quality_word, speed_word
from bench.layer_words import ARROW, explained, removed, side_by_side
from bench.words import (
    cell_of,
    megabytes,
    ms,
    ms_text,
    name_of,
    points,
    quality_text,
    score,
    search_of,
    shown_rows,
    times,
    words_a_second,
)
from distill.report import Latency, LayerCost, Quality, Report

Row = Sequence[str]
SIGNS: Mapping[str, str] = MappingProxyType({"not told apart": "~", "not judged": "?"})


def markdown(report: Report) -> str:
    """The whole report; sections without numbers are left out."""
    sections = [
        _section("Quality", _quality(report)),
        _section("Words a second", _words(report)),
        _section("Latency", _latency(report)),
        _section("Size", _size(report)),
        _section("Layers", _layers(report)),
        _section("Memory", _memory(report)),
        _section("Parity", _parity(report)),
        _section("Notes", "\n".join(f"- {note}" for note in report.notes)),
        _section("Environment", _environment(report)),
        _section("Every latency", _details(report)),
    ]
    return "\n\n".join([f"# {report.name}", *filter(None, [_in_short(report), *sections])]) + "\n"


def _section(title: str, body: str) -> str:
    """A heading and what is under it, or nothing."""
    return f"## {title}\n\n{body}" if body else ""


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; nothing where there are no rows."""
    lines = [_line(row) for row in rows]
    rule = "|" + "|".join([" --- "] + [" ---: "] * (len(head) - 1)) + "|"
    return "\n".join([_line(head), rule, *lines]) if lines else ""


def _line(cells: Row) -> str:
    """One row; a bar in a cell does not end it."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _in_short(report: Report) -> str:
    """One sentence on each model against the baseline, at batch 1."""
    return "\n".join(
        f"- {sentence}" for sentence in filter(None, (_sentence(row, report) for row in shown_rows(report)))
    )


def _sentence(row: Latency, report: Report) -> str:
    """What may be said about one model against the baseline."""
    if row.speedup is None:
        return ""
    speed = f"{times(row)} the speed of {row.baseline} ({speed_word(row)}) at {cell_of(row)}"
    matching = [other for other in report.quality if name_of(other) == name_of(row) and other.difference is not None]
    return "; ".join([f"**{name_of(row)}**: {speed}", *(_quality_sentence(other) for other in matching)])


def _quality_sentence(row: Quality) -> str:
    """What may be said about one model's quality."""
    return f"{row.metric} {score(row.metric, row.value, 3)}, difference {points(row)} points ({quality_word(row)})"


def _quality(report: Report) -> str:
    """Scores with intervals, and differences to the baseline."""
    head = [
        "model",
        "split",
        "metric",
        "value [95 %]",
        "n",
        "difference in points [95 %]",
        "answers flipped",
        "so it is",
    ]
    rows = [
        [
            name_of(row),
            row.split,
            row.metric,
            quality_text(row),
            str(row.n),
            points(row),
            "" if row.flipped is None else f"{row.flipped} ({row.flipped / row.n:.1%})",
            quality_word(row),
        ]
        for row in report.quality
    ]
    return table(head, rows)


def _latency(report: Report) -> str:
    """One grid for each device, thread count and kind of work: median milliseconds and the ratio to the baseline."""
    groups = dict.fromkeys((row.device, row.threads, row.work, row.beams) for row in report.latency)
    together = [
        [row for row in report.latency if (row.device, row.threads, row.work, row.beams) == group] for group in groups
    ]
    if not together:
        return ""
    legend = (
        "Median milliseconds a batch, and how many times the baseline's speed that is. **Bold**: the fastest of its "
        "column, where no other interval meets its own. `~`: not told apart from the baseline. "
        "`?`: other processes took too much of the machine to judge."
    )
    return "\n\n".join([legend, *map(_grid, together)])


def _words(report: Report) -> str:
    """What translation models write a second, on real sentences."""
    rows = [row for row in report.latency if row.words_per_second is not None]
    columns = list(dict.fromkeys(row.cell for row in rows))
    cells = {column: {name_of(row): row for row in rows if row.cell == column} for column in columns}
    head = ["model", *(cell_of(next(iter(found.values()))) for found in cells.values())]
    names = dict.fromkeys(name_of(row) for row in rows)
    empty = {name: "" for name in names}
    body = [
        [name, *((empty | {n: words_a_second(row) for n, row in found.items()})[name] for found in cells.values())]
        for name in names
    ]
    return table(head, body)


def _grid(rows: Sequence[Latency]) -> str:
    """Models down, batch and length across."""
    columns = dict.fromkeys((row.batch, row.length) for row in rows)
    cells = {column: [row for row in rows if (row.batch, row.length) == column] for column in columns}
    best = [found[0] for found in map(fastest, cells.values()) if len(found) == 1]
    head = ["model", *(f"{batch} x {'~' * (rows[0].work == 'text')}{length}" for batch, length in columns)]
    names = dict.fromkeys(name_of(row) for row in rows)
    body = [[name, *(_grid_cell(name, found, best) for found in cells.values())] for name in names]
    return f"{_grid_title(rows[0])}\n\n{table(head, body)}"


def _grid_title(first: Latency) -> str:
    """Where, with how many threads, what, and how it was searched for."""
    work = "real texts, tokenizer included" if first.work == "text" else "fixed ids"
    search = f", {search_of(first)}" if first.beams else ""
    threads = f"{first.threads} thread{'s' * (first.threads > 1)}"
    return f"### {first.device}, {threads}, {work}{search} (batch x tokens)"


def _grid_cell(name: str, rows: Sequence[Latency], best: Sequence[Latency]) -> str:
    """One model in one cell."""
    row = next((row for row in rows if name_of(row) == name), None)
    if row is None:
        return ""
    time = f"**{ms(row.p50_ms)}**" if row in best else ms(row.p50_ms)
    if row.speedup is None:
        return time
    return f"{time} ({SIGNS.get(speed_word(row), '')}{row.speedup:.2f}x)"


def _details(report: Report) -> str:
    """Every row with its tails, interval and number of runs."""
    head = ["model", "cell", "p50 ms [95 %]", "p95", "p99", "per second", "tokens a second", "runs", "speedup [95 %]"]
    rows = [
        [
            name_of(row),
            f"{row.work}, {row.device}, {cell_of(row)}",
            ms_text(row),
            ms(row.p95_ms),
            ms(row.p99_ms),
            f"{row.per_second:.1f}",
            "-" if row.tokens_per_second is None else f"{row.tokens_per_second:.0f}",
            str(row.runs),
            "" if row.speedup is None else f"{row.speedup:.2f} [{row.speedup_low:.2f}, {row.speedup_high:.2f}]",
        ]
        for row in report.latency
    ]
    return table(head, rows)


def _size(report: Report) -> str:
    """Bytes on disk, against the first row."""
    first = report.size[0].bytes if report.size else 0
    rows = [
        [name_of(row), megabytes(row.bytes), megabytes(row.weights_bytes), f"{row.bytes / first:.1%}" if first else ""]
        for row in report.size
    ]
    return table(["model", "MB", "of these weights", "of the first"], rows)


def _layers(report: Report) -> str:
    """What each layer costs: of the first bundle and of the last one."""
    bundles: dict[str, list[LayerCost]] = {}
    for row in report.layers:
        bundles.setdefault(name_of(row), []).append(row)
    if not bundles:
        return ""
    names = list(bundles)
    shown = {name: bundles[name] for name in dict.fromkeys((names[0], names[-1]))}
    head, rows = side_by_side(list(shown.values()))
    gone = [f"removed: {line}" for line in removed(bundles[names[0]], bundles[names[-1]])]
    lines = "\n".join(f"- {line}" for line in [*gone, *explained(list(shown.values()), {})])
    return f"{ARROW.join(shown)}\n\n{table(head, rows)}\n\n{lines}"


def _memory(report: Report) -> str:
    """Peak memory, what the libraries alone take, and load time."""
    rows = [
        [
            name_of(row),
            megabytes(row.peak_bytes),
            megabytes(row.import_bytes),
            "-" if row.load_ms is None else f"{row.load_ms:.0f}",
        ]
        for row in report.memory
    ]
    return table(["model", "peak MB", "of these libraries", "load ms"], rows)


def _parity(report: Report) -> str:
    """How far two forms of one model are apart."""
    rows = [
        [row.a, row.b, "-" if row.max_abs is None else f"{row.max_abs:.2g}", f"{row.agreement:.2%}", str(row.n)]
        for row in report.parity
    ]
    return table(["this", "that", "largest difference of a logit", "same answer", "n"], rows)


def _environment(report: Report) -> str:
    """The machine and the software."""
    values = {key: value for key, value in report.environment.items() if key != "versions"}
    values |= {f"{name} version": number for name, number in dict(report.environment.get("versions", {})).items()}
    return table(
        ["", ""], [[key, ", ".join(value) if isinstance(value, list) else str(value)] for key, value in values.items()]
    )
