"""Separated text, read so that no field is shifted, merged or turned into something else."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from distill.errors import DataError
from distill.table import Row, Table

CELL_LIMIT = 2**24
"""Longest csv cell in characters: beyond it, a quote was opened and not closed."""
DELIMITERS = ",;\t|"


def read_csv(name: str, text: str, columns: Sequence[str] = ()) -> Table:
    """Comma-separated text with a header, or with these `columns`; `;`, tab and `|` are seen in the first line."""
    header = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    return _separated(name, text, delimiter, quoted=True, columns=tuple(columns))


def read_tsv(name: str, text: str, columns: Sequence[str] = ()) -> Table:
    """Tab-separated text with a header, or with these `columns`; quotes count only where the whole file agrees.

    Spreadsheets quote cells, corpora do not and begin cells with a quotation mark: a file is quoted if all of it reads
    cleanly so, and no cell swallows both a tab and a line end.
    """
    quoted = _separated(name, text, "\t", quoted=True, columns=tuple(columns))
    cells = (cell for row in quoted.rows for cell in row.cells.values())
    if quoted.problems or any("\t" in cell and "\n" in cell for cell in cells):
        return _separated(name, text, "\t", quoted=False, columns=tuple(columns))
    return quoted


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv module's limit belongs to the process: raise it, and put it back."""
    before = csv.field_size_limit(CELL_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _separated(name: str, text: str, delimiter: str, quoted: bool, columns: tuple[str, ...]) -> Table:
    """Read separated text; rows with more or fewer fields than the header (or `columns`) become problems."""
    # newline="" keeps the line ends inside quoted cells as they are.
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    source = "data.columns" if columns else "the header"
    rows: list[Row] = []
    problems: list[str] = []
    with _long_cells():
        for line, fields, broken in _fields(lines):
            if broken:
                problems.append(f"{name}:{line}: {broken}")
            elif not columns:
                columns = _header(name, fields)
            elif len(fields) != len(columns):
                problems.append(f"{name}:{line}: {_count(len(fields))}, but {source} has {len(columns)}")
            else:
                rows.append(Row(line, dict(zip(columns, fields, strict=True))))
    if not columns:
        raise DataError(f"{name} has no header that can be read", problems)
    return Table(name, columns, tuple(rows), tuple(problems))


def _fields(lines: Any) -> Iterator[tuple[int, list[str], str]]:
    """Each row's first line, its fields, and what is wrong with it; empty lines are no rows."""
    while True:
        first = lines.line_num + 1
        try:
            fields = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield first, [], _explained(str(error))
            continue
        if fields:
            yield first, fields, ""


def _explained(error: str) -> str:
    """The csv module's messages in words a reader of the file understands."""
    if "unexpected end" in error or "field limit" in error:
        return "a quotation mark opens here and is never closed"
    if "expected after" in error:
        return 'text follows a closing quotation mark; inside a quoted cell write "" for one mark'
    return error


def _count(fields: int) -> str:
    """A number of fields in words."""
    return f"{fields} field" if fields == 1 else f"{fields} fields"


def _header(name: str, fields: Sequence[str]) -> tuple[str, ...]:
    """Column names, each once."""
    columns = tuple(field.strip() for field in fields)
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataError(
            f"{name}: the header names {', '.join(map(repr, twice))} more than once; give each column a name"
        )
    return columns
