"""Files of rows, read without guessing: every cell keeps the text it had, every row its line.

A reader never turns text into something else: "NA", "null", "007" and "1e5" stay as they are.
Broken rows are collected, not raised, so that the caller can name them all at once or count them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from distill.errors import DataError
from distill.files import parse_json
from distill.separated import read_csv, read_tsv
from distill.table import Row, Table, named_labels

QUESTION = re.compile(r"([A-Z]+):(\w+) (\S.*)")
"""A line of the TREC question files: `COARSE:fine What is … ?`"""


def read_table(path: Path, columns: Sequence[str] = ()) -> Table:
    """Read a file of rows; its suffix says how. `columns` names those of csv and tsv files without a header line.

    Raises:
        DataError: no such file or kind of file, empty, not UTF-8, or a header that cannot be used.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path.name}: cannot read this kind of file; expected one of {', '.join(SUFFIXES)}")
    try:
        if suffix == PARQUET:
            return _read_parquet(path)
        if suffix in SEPARATED:
            return SEPARATED[suffix](path.name, _read_text(path), columns)
        return TEXT_READERS[suffix](path.name, _read_text(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _read_text(path: Path) -> str:
    """The whole file as text, without a byte-order mark."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(_not_utf8(path, "UTF-16", "it starts with the mark of UTF-16"))
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        at = error.start + len(data) - len(error.object)
        what = f"line {line}, byte {at} of the file: 0x{data[at]:02x} is not UTF-8"
        raise DataError(_not_utf8(path, "WINDOWS-1252", what)) from error
    if not text.strip():
        raise DataError(f"{path.name} is empty; expected rows of text")
    return text


def _not_utf8(path: Path, encoding: str, what: str) -> str:
    """What is wrong with the bytes, and the command that mends it."""
    return f"{path.name}: {what}; convert it with: iconv -f {encoding} -t UTF-8 '{path.name}' > 'utf8-{path.name}'"


def _read_jsonl(name: str, text: str) -> Table:
    """One JSON object a line; a key that a line lacks counts as null."""
    rows: list[Row] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = parse_json(line.encode("utf-8"))
        except ValueError as error:
            problems.append(f"{name}:{number}: {_json_problem(error)}")
            continue
        if isinstance(value, dict):
            rows.append(Row(number, value))
        else:
            problems.append(f"{name}:{number}: expected a JSON object, found {line.strip()[:40]}")
    return Table(name, _columns(rows), tuple(rows), tuple(problems))


def _json_problem(error: ValueError) -> str:
    """Where one line stops being JSON."""
    return (
        f"not JSON at character {error.pos + 1}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
    )


def _columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """Every key, in the order of first appearance."""
    return tuple(dict.fromkeys(key for row in rows for key in row.cells))


def _read_txt(name: str, text: str) -> Table:
    """One text a line; a file whose lines all read `COARSE:fine text` also has the columns `label` and `fine`."""
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    matches = [QUESTION.fullmatch(line) for _, line in lines]
    questions = [match.groups() for match in matches if match]
    if len(questions) < len(lines):
        return Table(name, ("text",), tuple(Row(number, {"text": line}) for number, line in lines))
    columns = ("label", "fine", "text")
    rows = (
        Row(number, dict(zip(columns, cells, strict=True))) for (number, _), cells in zip(lines, questions, strict=True)
    )
    return Table(name, columns, tuple(rows))


def _read_parquet(path: Path) -> Table:
    """A parquet file; label numbers get the names that `datasets` stored beside them."""
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path.name} is not a parquet file that can be read: {str(error).splitlines()[0]}") from error
    names = _stored_names(table.schema.metadata or {})
    rows = [Row(number, cells) for number, cells in enumerate(table.to_pylist(), start=1)]
    return named_labels(Table(path.name, tuple(table.column_names), tuple(rows), binary=True), names)


def _stored_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of each label column, from the note that `datasets` leaves in a parquet file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {column: list(kind["names"]) for column, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}


PARQUET = ".parquet"
SEPARATED: Mapping[str, Callable[[str, str, Sequence[str]], Table]] = {".csv": read_csv, ".tsv": read_tsv}
TEXT_READERS: Mapping[str, Callable[[str, str], Table]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".txt": _read_txt,
}
SUFFIXES = (*SEPARATED, *TEXT_READERS, PARQUET)
