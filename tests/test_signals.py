"""Signals: found again by id and by label name, never by place; refused when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from distill.errors import DataError
from distill.signals import ABOUT, TENSORS, Signals, read, write

IDS = ("00000000000000ff", "ffffffffffffffff", "0123456789abcdef")
LOGITS = np.array([[0.5, -1.0, 3.0], [2.0, 0.0, 1.0], [7.0, 8.0, 9.0]], dtype=np.float32)
SIGNALS = Signals(IDS, LOGITS, ("bad", "fair", "good"), "feed" * 16)


def test_there_and_back(tmp_path: Path) -> None:
    write(SIGNALS, tmp_path)
    found = read(tmp_path)
    assert (found.ids, found.labels, found.teacher) == (SIGNALS.ids, SIGNALS.labels, SIGNALS.teacher)
    assert found.logits.dtype == np.float32
    assert np.array_equal(found.logits, LOGITS)


def test_written_twice_the_bytes_are_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(SIGNALS, tmp_path / name)
    for file in (TENSORS, ABOUT):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@given(st.permutations(range(3)), st.permutations(range(3)))
def test_rows_by_id_and_columns_by_label_name(rows: list[int], columns: list[int]) -> None:
    found = SIGNALS.of([IDS[i] for i in rows], [SIGNALS.labels[i] for i in columns])
    assert found.tolist() == [[LOGITS[row, column] for column in columns] for row in rows]
    assert found.flags.c_contiguous


def test_the_same_example_twice() -> None:
    assert SIGNALS.of([IDS[2], IDS[2]], SIGNALS.labels).tolist() == [[7, 8, 9], [7, 8, 9]]


@pytest.mark.parametrize(
    ("labels", "named"),
    [(("bad", "fair", "great"), "great"), (("bad", "fair"), "bad, fair"), (("bad", "fair", "good", "best"), "best")],
)
def test_a_teacher_of_other_labels(labels: tuple[str, ...], named: str) -> None:
    with pytest.raises(DataError, match="the teacher answers bad, fair, good") as found:
        SIGNALS.of(IDS, labels)
    assert named in str(found.value)


def test_examples_the_teacher_was_not_asked_about() -> None:
    with pytest.raises(DataError, match="2 examples have no signals: label them again") as found:
        SIGNALS.of(["0" * 16, IDS[0], "1" * 16], SIGNALS.labels)
    assert found.value.problems == ("0" * 16, "1" * 16)


def damage_tensors(folder: Path) -> None:
    (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-8])


def damage_header(folder: Path) -> None:
    (folder / TENSORS).write_bytes(b"\xff" * 64)


def drop_tensors(folder: Path) -> None:
    (folder / TENSORS).unlink()


def drop_about(folder: Path) -> None:
    (folder / ABOUT).unlink()


def break_about(folder: Path) -> None:
    (folder / ABOUT).write_text("{")


def list_about(folder: Path) -> None:
    (folder / ABOUT).write_text("[]")


def no_labels(folder: Path) -> None:
    (folder / ABOUT).write_text("{}")


def null_labels(folder: Path) -> None:
    (folder / ABOUT).write_text('{"labels": null}')


def other_labels(folder: Path) -> None:
    (folder / ABOUT).write_text(json.dumps({"labels": ["bad", "good"]}))


def no_ids(folder: Path) -> None:
    save_file({"logits": LOGITS}, folder / TENSORS)


def fewer_ids(folder: Path) -> None:
    save_file({"ids": np.arange(2, dtype=np.uint64), "logits": LOGITS}, folder / TENSORS)


def ids_of_another_kind(folder: Path) -> None:
    save_file({"ids": np.arange(3, dtype=np.float32), "logits": LOGITS}, folder / TENSORS)


def ids_in_a_table(folder: Path) -> None:
    save_file({"ids": np.zeros((3, 1), dtype=np.uint64), "logits": LOGITS}, folder / TENSORS)


def not_a_number(folder: Path) -> None:
    save_file({"ids": np.arange(3, dtype=np.uint64), "logits": LOGITS * np.float32("nan")}, folder / TENSORS)


@pytest.mark.parametrize(
    "damage",
    [
        damage_tensors,
        damage_header,
        drop_tensors,
        drop_about,
        break_about,
        list_about,
        no_labels,
        null_labels,
        other_labels,
        no_ids,
        fewer_ids,
        ids_of_another_kind,
        ids_in_a_table,
        not_a_number,
    ],
    ids=lambda damage: damage.__name__,
)
def test_damaged_signals_are_refused(tmp_path: Path, damage: object) -> None:
    write(SIGNALS, tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match="label again"):
        read(tmp_path)
