"""What a file says is what a table holds: text stays text, lines are counted, broken rows are named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from distill.errors import DataError
from distill.readers import read_table
from distill.table import Table, as_text


def table(folder: Path, name: str, data: bytes | str) -> Table:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(path)


def rows(read: Table) -> list[list[object]]:
    return [list(row.cells.values()) for row in read.rows]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.csv", "text,label\nfine,1\n", [["fine", "1"]]),
        ("bom.csv", b"\xef\xbb\xbftext,label\r\nfine,1\r\n", [["fine", "1"]]),
        ("quoted.csv", 'text,label\n"a\nb, ""c""",1\n', [['a\nb, "c"', "1"]]),
        ("crlf.csv", 'text,label\r\n"a\r\nb",1\r\n', [["a\r\nb", "1"]]),
        ("tab.csv", 'text,label\n"a\tb",1\n', [["a\tb", "1"]]),
        ("semicolon.csv", "text;label\na, b;1\n", [["a, b", "1"]]),
        ("blank.csv", "\n\ntext,label\n\nfine,1\n\n", [["fine", "1"]]),
        ("one.csv", "text\nfine\n", [["fine"]]),
        ("a.tsv", "text\tlabel\na, b\t1\n", [["a, b", "1"]]),
        ("marks.tsv", 'text\tlabel\n"No" , he said\t1\n"\t0\n', [['"No" , he said', "1"], ['"', "0"]]),
        ("merge.tsv", 'text\tlabel\n"a\tx\nb"\ty\n', [['"a', "x"], ['b"', "y"]]),
        ("sheet.tsv", 'text\tlabel\n"a\tb ""c"""\t1\n', [['a\tb "c"', "1"]]),
        ("a.jsonl", '{"text": "fine", "label": 1}\n\n{"text": null, "label": true}\r\n', [["fine", 1], [None, True]]),
        ("plain.txt", "one\n\nDESC:def two\n", [["one"], ["DESC:def two"]]),
        (
            "trec.txt",
            "DESC:def What is it ?\nHUM:ind Who ?\n",
            [["DESC", "def", "What is it ?"], ["HUM", "ind", "Who ?"]],
        ),
    ],
)
def test_cells_are_what_the_file_says(
    tmp_path: Path, name: str, data: bytes | str, expected: list[list[object]]
) -> None:
    read = table(tmp_path, name, data)
    assert rows(read) == expected
    assert read.problems == ()


@pytest.mark.parametrize("word", ["NA", "null", "None", "NaN", "1e5", "007", "true", " 1 ", "-0", ""])
def test_text_stays_text(tmp_path: Path, word: str) -> None:
    assert rows(table(tmp_path, "a.csv", f"text,label\n{word},{word}\n")) == [[word, word]]
    assert rows(table(tmp_path, "a.tsv", f"text\tlabel\n{word}\t{word}\n")) == [[word, word]]
    assert rows(table(tmp_path, "a.jsonl", json.dumps({"text": word}))) == [[word]]


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    read = table(tmp_path, "a.csv", 'text,label\n"a\nb",1\n\nc,2\n')
    assert [read.place(row.line) for row in read.rows] == ["a.csv:2", "a.csv:5"]


@pytest.mark.parametrize(
    ("name", "data", "problems", "kept"),
    [
        (
            "a.csv",
            "text,label\na,b,c\nd\ngood,1\n",
            ["a.csv:2: 3 fields, but the header has 2", "a.csv:3: 1 field, but the header has 2"],
            1,
        ),
        (
            "q.csv",
            'text,label\ngood,1\n"open,1\nx,2\n',
            ["q.csv:3: a quotation mark opens here and is never closed"],
            1,
        ),
        (
            "s.csv",
            'text,label\n"a" b,1\ngood,1\n',
            ['s.csv:2: text follows a closing quotation mark; inside a quoted cell write "" for one mark'],
            1,
        ),
        ("a.tsv", 'text\tlabel\n"a\tb\tc\ngood\t1\n', ["a.tsv:2: 3 fields, but the header has 2"], 1),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": \n{"text": "b", "text": "c"}\n["d"]\n{"text": NaN}\n',
            [
                "a.jsonl:2: not JSON at character 10: Expecting value",
                "a.jsonl:3: key 'text' stands twice",
                'a.jsonl:4: expected a JSON object, found ["d"]',
                "a.jsonl:5: NaN is not JSON",
            ],
            1,
        ),
        ("deep.jsonl", "[" * 200_000 + '\n{"text": "a"}\n', ["deep.jsonl:1: nested too deeply"], 1),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, name: str, data: str, problems: list[str], kept: int) -> None:
    read = table(tmp_path, name, data)
    assert list(read.problems) == problems
    assert len(read.rows) == kept


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "a.csv",
            b"text,label\nok,1\ncaf\xe9,1\n",
            "a.csv: line 3, byte 19 of the file: 0xe9 is not UTF-8; convert it with: iconv -f ",
        ),
        ("b.csv", b"\xef\xbb\xbftext\ncaf\xe9\n", "b.csv: line 2, byte 11 of the file: 0xe9"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "a.jsonl: line 2, byte 24 of the file: 0xff is not UTF-8"),
        ("u.csv", "text,label\na,1\n".encode("utf-16"), "iconv -f UTF-16 -t UTF-8 'u.csv' > 'utf8-u.csv'"),
        ("a.csv", b"", "a.csv is empty"),
        ("a.jsonl", b" \n\n", "a.jsonl is empty"),
        ("a.csv", b"text,text\na,b\n", "the header names 'text' more than once"),
        ("a.parquet", b"PAR1 not really", "a.parquet is not a parquet file"),
        ("a.xlsx", b"", "a.xlsx: cannot read this kind of file; expected one of .csv, .tsv"),
        ("a.csv", b'"text', "a.csv has no header that can be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, name, data)
    assert message in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.csv")


def test_long_cells_leave_the_csv_module_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    text = "x" * 1_000_000
    assert rows(table(tmp_path, "a.csv", f"text,label\n{text},1\n")) == [[text, "1"]]
    assert csv.field_size_limit() == before


def parquet(path: Path, columns: dict[str, list[object]], note: object = None) -> Table:
    made = pyarrow.table(columns)
    if note is not None:
        made = made.replace_schema_metadata({b"huggingface": json.dumps(note).encode()})
    pyarrow.parquet.write_table(made, path)
    return read_table(path)


def test_parquet_with_label_names(tmp_path: Path) -> None:
    names = {"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}}
    read = parquet(tmp_path / "a.parquet", {"text": ["a", "b", "c", "d"], "label": [1, 0, -1, 7]}, names)
    assert rows(read) == [["a", "good"], ["b", "bad"], ["c", None]]
    assert read.problems == ("a.parquet row 4: label is 7, but has only 2 names",)


@pytest.mark.parametrize("note", [None, [], {"info": None}, {"info": {"features": {"label": {"_type": "ClassLabel"}}}}])
def test_parquet_without_label_names(tmp_path: Path, note: object) -> None:
    assert rows(parquet(tmp_path / "a.parquet", {"text": ["a"], "label": [1]}, note)) == [["a", 1]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("007", "007"),
        (7, "7"),
        (-1, "-1"),
        (True, "true"),
        (False, "false"),
        ("\ud83d\ude00", "😀"),
        ("a\ud800b", "a\ufffdb"),
    ],
)
def test_as_text(value: object, expected: str) -> None:
    assert as_text(value) == expected


@pytest.mark.parametrize("value", [1.0, 0.5, ["a"], {"a": 1}, b"a", None])
def test_what_is_no_text(value: object) -> None:
    with pytest.raises(ValueError, match="expected text or a whole number"):
        as_text(value)
