"""From a table's rows to examples of a task: the right columns, as text, each with its place in the file."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from distill.errors import DataError
from distill.table import Row, Table, as_text

FRACTION = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Example:
    """One text or pair with its label (empty where there is none) and its place; `key` is equal for equal wording.

    `target` is the text's translation, None where there is none.
    """

    text: str
    pair: str | None
    label: str
    place: str
    key: str
    target: str | None = None


@dataclass(frozen=True)
class Examples:
    """What a table holds for a task, and the rows that do not fit."""

    rows: tuple[Example, ...]
    problems: tuple[str, ...]


def wording(text: str, pair: str | None) -> str:
    """The same for texts that differ only in case, spacing or Unicode's ways to write a character."""
    sides = (" ".join(unicodedata.normalize("NFKC", side).casefold().split()) for side in (text, pair or ""))
    return "\0".join(sides)


Take = Callable[[Row, str], Example]
"""One row and its place as an example, or a ValueError."""


def take(table: Table, columns: Sequence[str], where: Mapping[str, str], make: Take) -> Examples:
    """The rows that `where` lets through, as examples.

    Raises:
        DataError: a column is missing, or no row is left.
    """
    _require(table, [*columns, *where])
    examples: list[Example] = []
    problems = list(table.problems)
    for row in _filtered(table, where):
        try:
            examples.append(make(row, table.place(row.line)))
        except ValueError as error:
            problems.append(f"{table.place(row.line)}: {error}")
    return Examples(tuple(examples), tuple(problems))


def _require(table: Table, columns: Iterable[str]) -> None:
    """Refuse a table that lacks columns."""
    if not table.rows:
        raise DataError(
            f"{table.name} holds no rows that can be read; expected a header and rows below it", table.problems
        )
    names = table.names()
    missing = [column for column in columns if column not in names]
    if missing:
        found = ", ".join(names)
        raise DataError(
            f"{table.name} lacks a column that the recipe names; found: {found}",
            [_closest(column, names) for column in missing],
        )


def _closest(column: str, columns: Sequence[str]) -> str:
    """A missing column and the nearest name there is."""
    lower = {name.lower(): name for name in columns}
    close = difflib.get_close_matches(column.lower(), list(lower), n=1, cutoff=0.5)
    return f"no column {column!r}" + (f"; did you mean {lower[close[0]]!r}?" if close else "")


def _filtered(table: Table, where: Mapping[str, str]) -> list[Row]:
    """The rows whose columns have the values asked for."""
    rows = [row for row in table.rows if all(_shown(row.cell(column)) == value for column, value in where.items())]
    if not rows:
        values = {column: sorted({_shown(row.cell(column)) for row in table.rows})[:10] for column in where}
        problems = [
            f"{column}: expected {where[column]!r}, found {', '.join(map(repr, values[column]))}" for column in where
        ]
        raise DataError(f"data.where lets no row of {table.name} through", problems)
    return rows


def _shown(value: object) -> str:
    """A cell as `where` compares it."""
    try:
        return as_text(value)
    except ValueError:
        return str(value)


def cell(row: Row, column: str) -> str:
    """One cell as text."""
    value = row.cell(column)
    if value is None:
        raise ValueError(f"column {column!r} is missing or null")
    try:
        return as_text(value)
    except ValueError as error:
        raise ValueError(f"column {column!r}: {error}") from error


def choose_labels(train: Sequence[Example], wanted: Sequence[str] | None, name: str) -> tuple[str, ...]:
    """The labels in order: as the recipe lists them, else sorted.

    Raises:
        DataError: a label that the recipe does not list, one label only, or numbers with fractions.
    """
    found = sorted({example.label for example in train})
    if wanted is None:
        return _labels_found(found, name)
    strange = [example for example in train if example.label not in wanted]
    if strange:
        raise DataError(f"{name} has labels that task.labels does not list ({', '.join(wanted)})", _listed(strange))
    _several(found, name)
    return tuple(wanted)


def _labels_found(found: Sequence[str], name: str) -> tuple[str, ...]:
    """Labels read off the data, unless they are measurements."""
    if found and all(FRACTION.fullmatch(label) for label in found):
        raise DataError(
            f"{name} has numbers with fractions as labels ({', '.join(found[:5])}, …); expected names of classes "
            "(if these are names, list them in task.labels)"
        )
    _several(found, name)
    return tuple(found)


def _several(found: Sequence[str], name: str) -> None:
    """Refuse data from which nothing can be told apart."""
    if len(found) < 2:
        raise DataError(f"every row of {name} has the label {found[0]!r}; expected at least two different labels")


def _listed(examples: Sequence[Example]) -> list[str]:
    """Each label with its number of rows and the first of them."""
    places: dict[str, list[str]] = {}
    for example in examples:
        places.setdefault(example.label, []).append(example.place)
    return [f"{label!r}: {len(rows)} row(s), the first at {rows[0]}" for label, rows in sorted(places.items())]


def require_known(split: str, examples: Sequence[Example], labels: Sequence[str]) -> None:
    """Refuse a held-out split with labels that nothing was learned about.

    Raises:
        DataError: naming each such label.
    """
    strange = [example for example in examples if example.label not in labels]
    if strange:
        raise DataError(
            f"the {split} split has labels that train lacks (train has {', '.join(labels)})", _listed(strange)
        )
