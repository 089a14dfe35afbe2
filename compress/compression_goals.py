"""What compressing gained and cost: one row a model, from a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.markdown import table
from bench.words import megabytes, name_of, points, quality_text, times, words_a_second
from compress.seeds import markdown, mean
from distill.report import Latency, Quality, Report, Size

IDS = ((1, 16), (1, 64), (1, 128), (8, 128))
"""Texts and tokens of the cells that are shown, besides real texts."""
BATCHES = (1, 32)


def goals(report: Report) -> str:
    """Classifiers, then translation models, each compared with the first one of its data."""
    shown = _shown(report)
    classifiers = [row for row in shown if row.beams is None]
    translators = [row for row in shown if row.beams is not None]
    tables = [_classifiers(classifiers, report)] if classifiers else []
    return "\n\n".join([*tables, *([_translators(translators, report)] if translators else [])])


def means(reports: Sequence[Report]) -> str:
    """Mean differences over seeds, one report a seed: from the teacher, of int8 from its own fp32."""
    found = [{name_of(row): row.difference for row in _shown(report)} for report in reports]
    common = [name for name, value in found[0].items() if all(each.get(name) is not None for each in found)]
    return markdown([mean(name, [each[name] or 0.0 for each in found]) for name in common])


def _shown(report: Report) -> list[Quality]:
    """Each model's rows of its first metric."""
    primary = {row.key[:4]: row.metric for row in reversed(report.quality)}
    return [row for row in report.quality if row.metric == primary[row.key[:4]]]


def _classifiers(rows: Sequence[Quality], report: Report) -> str:
    """Scores, their differences, and how many times as fast; int8 is compared with its own fp32, and not timed."""
    cells = [_ids(batch, length) for batch, length in IDS] + [_texts(32)]
    head = ["model", "test", "points [95 %]", *(f"{batch} x {length}" for batch, length in IDS), "32 real texts", "MB"]
    return table(head, [[*_scores(row), *_timed(row, report, cells, times), _bytes(row, report.size)] for row in rows])


def _translators(rows: Sequence[Quality], report: Report) -> str:
    """Scores and their differences, words a second and how many times as fast."""
    cells = [_texts(batch) for batch in BATCHES]
    head = [f"{what}, batch {batch}" for what in ("words a second", "times as fast") for batch in BATCHES]
    found = [
        [
            *_scores(row),
            *_timed(row, report, cells, words_a_second),
            *_timed(row, report, cells, times),
            _bytes(row, report.size),
        ]
        for row in rows
    ]
    return table(["model", "test", "points [95 %]", *head, "MB"], found)


Cell = Callable[[Latency], bool]
"""Whether a row of latencies is of some cell."""


def _ids(batch: int, length: int) -> Cell:
    """So many texts of so many tokens."""
    return lambda row: row.work == "ids" and (row.batch, row.length) == (batch, length)


def _texts(batch: int) -> Cell:
    """So many real texts."""
    return lambda row: row.work == "text" and row.batch == batch


def _scores(row: Quality) -> list[str]:
    """Name, score and difference."""
    return [name_of(row), f"{quality_text(row)}, n={row.n}", points(row)]


def _timed(row: Quality, report: Report, cells: Sequence[Cell], text: Callable[[Latency], str]) -> list[str]:
    """A model's times in these cells."""
    own = [each for each in report.latency if each.key[:4] == row.key[:4] and each.beams in (None, row.beams)]
    return [next((text(each) for each in own if cell(each)), "") for cell in cells]


def _bytes(row: Quality, sizes: Sequence[Size]) -> str:
    """All that inference reads."""
    own = [
        each for each in sizes if (each.model, each.precision, each.method) == (row.model, row.precision, row.method)
    ]
    return megabytes(own[0].bytes) if own else ""
