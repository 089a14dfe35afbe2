"""Whatever the bytes, a reader answers with rows or with our error; whatever the text, it comes back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.errors import DataError, PotstillError
from distill.readers import SUFFIXES, read_table
from distill.sources import resolve
from distill.splits import hold_out, near_duplicates

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@QUICK
@given(data=st.binary(max_size=300), suffix=st.sampled_from(SUFFIXES))
def test_random_bytes(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    try:
        table = read_table(path)
    except DataError:
        return
    assert all(set(row.cells) <= set(table.columns) for row in table.rows)


@QUICK
@given(
    text=st.text('ab",\t\n\r{}[]:0\\', max_size=80),
    suffix=st.sampled_from([suffix for suffix in SUFFIXES if suffix != ".parquet"]),
)
def test_random_marks(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(text, newline="")
    try:
        read_table(path)
    except DataError:
        return


@QUICK
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_csv_gives_back_what_was_written(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert [tuple(row.cells.values()) for row in read_table(path).rows] == rows


@QUICK
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), ascii_only=st.booleans())
def test_jsonl_gives_back_what_was_written(tmp_path: Path, rows: list[tuple[str, str]], ascii_only: bool) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) for text, label in rows]
    path.write_bytes("\n".join(lines).encode())
    assert [tuple(row.cells.values()) for row in read_table(path).rows] == rows


@QUICK
@given(texts=st.lists(st.text("ab c!", max_size=12), min_size=1, max_size=12), data=st.data())
def test_groups_follow_the_texts(texts: list[str], data: st.DataObject) -> None:
    groups = near_duplicates(texts)
    assert all(groups[i] == groups[j] for i in range(len(texts)) for j in range(i) if texts[i] == texts[j])
    order = data.draw(st.permutations(range(len(texts))))
    assert near_duplicates([texts[place] for place in order]).tolist() == groups[order].tolist()


@QUICK
@given(
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=60),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 5),
)
def test_held_out_rows(rows: list[tuple[int, int]], share: float, seed: int) -> None:
    groups, labels = (np.array(column) for column in zip(*rows, strict=True))
    try:
        held = hold_out(groups, labels, share, seed)
    except DataError:
        return
    assert not set(groups[held]) & set(groups[~held])
    assert set(labels[~held]) == set(labels)


@QUICK
@given(source=st.text(max_size=40) | st.text("a/.~", min_size=250, max_size=300))
@pytest.mark.parametrize("prefix", ["", "~", "pypi:", "pypi://a=1"])
def test_any_source_is_found_or_refused(tmp_path: Path, prefix: str, source: str) -> None:
    try:
        resolve(prefix + source, tmp_path, tmp_path / "cache")
    except PotstillError:
        return
