"""Translations on disk: the same come back, damage is named, unknown examples are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distill.errors import DataError
from distill.translations import Translations, read, together, write
from distill.words import Words

WORDS = Words(
    np.array([[1, 2], [3, 4], [5, 6]], np.uint16),
    np.log(np.array([[0.5, 0.25], [0.5, 0.25], [0.25, 0.25]])).astype(np.float16),
    np.log(np.array([0.25, 0.25, 0.5])).astype(np.float16),
    np.array([0, 2, 3]),
    2.0,
)
FOUND = Translations(("00" * 8, "0a" * 8), ("uno\u2028due", 'tre "x"'), (True, False), WORDS, "weights", "pieces")


def same(one: Translations, other: Translations) -> bool:
    if (one.words is None) != (other.words is None):
        return False
    if one.words is not None and other.words is not None:
        for name in ("pieces", "logs", "others", "starts"):
            a, b = getattr(one.words, name), getattr(other.words, name)
            if a.dtype != b.dtype or not np.array_equal(a, b):
                return False
    return replace(one, words=None) == replace(other, words=None)


@pytest.mark.parametrize("found", [FOUND, replace(FOUND, words=None)])
def test_there_and_back(tmp_path: Path, found: Translations) -> None:
    write(found, tmp_path)
    again = read(tmp_path)
    assert same(again, found)
    assert again.words is None or again.words.temperature == 2.0


def test_shards_together() -> None:
    other = replace(FOUND, ids=("0b" * 8, "0c" * 8))
    whole = together([FOUND, other])
    assert whole.ids == FOUND.ids + other.ids
    assert whole.texts == FOUND.texts * 2
    assert whole.words is not None and whole.words.starts.tolist() == [0, 2, 3, 5, 6]


def test_row_51_examples_that_the_teacher_was_not_asked_about() -> None:
    assert FOUND.rows(["0a" * 8, "00" * 8]) == [1, 0]
    with pytest.raises(DataError, match="1 examples have no translations") as error:
        FOUND.rows(["0b" * 8, "00" * 8])
    assert error.value.problems == ("0b" * 8,)


def shorten(folder: Path) -> None:
    path = folder / "translations.jsonl"
    path.write_text(path.read_text().split("\n")[0] + "\n")


def change_words(**arrays: np.ndarray) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        save_file(load_file(folder / "words.safetensors") | arrays, folder / "words.safetensors")

    return change


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (lambda folder: (folder / "signals.json").unlink(), "no readable translations"),
    (lambda folder: (folder / "signals.json").write_text("{}"), "no readable translations"),
    (lambda folder: (folder / "translations.jsonl").write_text('{"id": 1}\n'), "no readable translations"),
    (lambda folder: (folder / "words.safetensors").write_bytes(b"x"), "no readable translations"),
    (shorten, "3 words that do not add up to 1 translations"),
    (change_words(starts=np.array([0, 3, 2])), "do not add up"),
    (change_words(others=np.zeros(2, np.float16)), "for log-probabilities"),
    (change_words(logs=np.full((3, 2), np.nan, np.float16)), "NaN or infinite"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_what_is_damaged_is_not_used(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write(FOUND, tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        read(tmp_path)
