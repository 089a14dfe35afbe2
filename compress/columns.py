"""Which column of a table is the text, the second text, the label: by name, else by what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distill.errors import DataError
from distill.examples import FRACTION
from distill.table import Table, as_text

LABELS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "tag", "y", "coarse_label")
TEXTS = ("text", "sentence", "review", "question", "content", "message", "comment", "document", "utterance", "body")
PAIRS = (
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "answer"),
    ("question", "passage"),
    ("query", "document"),
    ("query", "passage"),
    ("text", "text_pair"),
)
MOST_LABELS = 200


@dataclass(frozen=True)
class Columns:
    """The columns of a task."""

    text: str
    pair: str | None
    label: str


def guess_columns(table: Table, text: str | None = None, pair: str | None = None, label: str | None = None) -> Columns:
    """Choose the columns that were not given.

    Raises:
        DataError: nothing in the table looks like a label, or like text.
    """
    label = label or _label(table, [text, pair])
    if text is None and pair is None:
        text, pair = _pair(table, label)
    text = text or _text(table, [label, pair])
    return Columns(text, pair, label)


def _by_name(table: Table, names: Iterable[str], taken: Sequence[str | None]) -> str | None:
    """The first column with one of these names, in any case."""
    lower = {column.lower(): column for column in table.columns if column not in taken}
    return next((lower[name] for name in names if name in lower), None)


def _pair(table: Table, label: str) -> tuple[str | None, str | None]:
    """Two columns that are known to go together."""
    for first, second in PAIRS:
        text, pair = _by_name(table, [first], [label]), _by_name(table, [second], [label])
        if text and pair:
            return text, pair
    return None, None


def _label(table: Table, taken: Sequence[str | None]) -> str:
    """The column named like a label, else the one with the fewest values that come again and again."""
    if named := _by_name(table, LABELS, taken):
        return named
    values = {column: _values(table, column) for column in table.columns if column not in taken}
    counts = {column: len(set(cells)) for column, cells in values.items() if _look_like_labels(cells)}
    if not counts:
        raise DataError(_unclear(table, "label"))
    return min(counts, key=lambda column: counts[column])


def _look_like_labels(cells: Sequence[str]) -> bool:
    """A few short values, each more than once on average, that are no measurements."""
    distinct = set(cells)
    few = 2 <= len(distinct) <= min(MOST_LABELS, len(cells) / 2)
    return few and max(map(len, distinct)) <= 60 and not all(FRACTION.fullmatch(cell) for cell in distinct)


def _text(table: Table, taken: Sequence[str | None]) -> str:
    """The column named like text, else the one with the longest cells."""
    if named := _by_name(table, TEXTS, taken):
        return named
    lengths = {column: sum(map(len, _values(table, column))) for column in table.columns if column not in taken}
    if not any(lengths.values()):
        raise DataError(_unclear(table, "text"))
    return max(lengths, key=lambda column: lengths[column])


def _unclear(table: Table, what: str) -> str:
    """Why a column could not be chosen, and how to name it."""
    found = ", ".join(table.columns)
    return f"cannot tell which column of {table.name} is the {what} (found: {found}); name it with --{what}"


def _values(table: Table, column: str) -> list[str]:
    """The cells of a column that are text, without empty ones."""
    cells = []
    for row in table.rows:
        try:
            cells.append(as_text(row.cells.get(column)))
        except ValueError:
            continue
    return [cell for cell in cells if cell.strip()]
