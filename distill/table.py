"""Rows as every reader returns them: each cell as it was, each row with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row: where it starts (lines count from 1, and so do the rows of binary files) and its cells."""

    line: int
    cells: Mapping[str, Any]

    def cell(self, column: str) -> Any:
        """The cell of a column, or of one inside another (`translation.en`); None where there is none."""
        if column in self.cells or "." not in column:
            return self.cells.get(column)
        outer, _, inner = column.partition(".")
        found = self.cells.get(outer)
        return Row(self.line, found).cell(inner) if isinstance(found, Mapping) else None

    def names(self) -> Iterator[str]:
        """The columns that have cells here, those inside others with dots."""
        for column, value in self.cells.items():
            yield column
            if isinstance(value, Mapping):
                yield from (f"{column}.{name}" for name in Row(self.line, value).names())


@dataclass(frozen=True)
class Table:
    """All rows of one source; `problems` names those that could not be read and are not in `rows`."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    binary: bool = False

    def names(self) -> tuple[str, ...]:
        """All columns; those inside others, as they are found in any row, follow with dots."""
        nested = [row for row in self.rows if any(isinstance(value, Mapping) for value in row.cells.values())]
        return tuple(dict.fromkeys([*self.columns, *(name for row in nested for name in row.names())]))

    def place(self, line: int) -> str:
        """How a message names a row: `reviews.csv:12`, or `reviews.parquet row 12`."""
        return f"{self.name} row {line}" if self.binary else f"{self.name}:{line}"


def as_text(value: object) -> str:
    """A cell as text: text as it is, whole numbers as their digits, true and false by name.

    Raises:
        ValueError: a number with a fraction (its digits are not certain), or no single value.
    """
    if isinstance(value, str):
        return _without_surrogates(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    raise ValueError(f"{str(value)[:40]!r} is a {type(value).__name__}; expected text or a whole number")


def _without_surrogates(text: str) -> str:
    """JSON may hold half of a surrogate pair, which no tokenizer takes: U+FFFD stands in for it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def named_labels(table: Table, names: Mapping[str, Sequence[str]]) -> Table:
    """Put each label's name for its number; -1 means that there is no label; other numbers are problems."""
    rows: list[Row] = []
    problems = list(table.problems)
    for row in table.rows:
        wrong = [column for column, known in names.items() if not _is_index(row.cells.get(column), len(known))]
        problems += [
            f"{table.place(row.line)}: {column} is {row.cells[column]!r}, but has only {len(names[column])} names"
            for column in wrong
        ]
        if not wrong:
            rows.append(
                Row(row.line, {column: _named(value, names.get(column)) for column, value in row.cells.items()})
            )
    return Table(table.name, table.columns, tuple(rows), tuple(problems), table.binary)


def _is_index(value: object, length: int) -> bool:
    """Whether this is a label's number, or stands for no label."""
    return value is None or (isinstance(value, int) and -1 <= value < length)


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """A label's name for its number, in a column that has names."""
    if names is None or value is None:
        return value
    return None if value == -1 else names[value]
