"""Pairs of sentences: columns wherever they are, filters that count what they take, splits that share no source."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data import Dataset, read
from distill.dataset import Notes
from distill.errors import DataError, RecipeError
from distill.examples import Example, wording
from distill.parallel import filtered
from distill.recipe import DataRecipe, FilterRecipe, TaskRecipe

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMERI = ["uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci"]
TASK = {"kind": "translation", "text": "en", "target": "it"}
HEADLESS = {"columns": ["en", "it"]}


def pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Different sentences of number words with their translations."""
    choose = random.Random(seed)
    found = dict.fromkeys(tuple(choose.choices(range(10), k=choose.randint(5, 9))) for _ in range(count))
    return [(" ".join(NUMBERS[i] for i in row), " ".join(NUMERI[i] for i in row)) for row in found]


def tsv(path: Path, rows: list[tuple[str, str]], header: bool = False) -> str:
    path.write_text("".join(f"{a}\t{b}\n" for a, b in ([("en", "it")] if header else []) + rows), encoding="utf-8")
    return path.name


def load(folder: Path, task: dict[str, Any] | None = None, **data: Any) -> Dataset:
    recipe = TaskRecipe.model_validate(TASK | (task or {}))
    return read(DataRecipe.model_validate(data), recipe, 42, folder, folder / "cache")


def test_a_file_without_a_header_and_one_with_it_give_the_same(tmp_path: Path) -> None:
    rows = pairs(200)
    bare = load(tmp_path, source=tsv(tmp_path / "a.tsv", rows), **HEADLESS)
    named = load(tmp_path, source=tsv(tmp_path / "b.tsv", rows, header=True))
    assert bare.splits == named.splits
    assert bare.fingerprint != named.fingerprint, "another file"
    assert sum(len(split) for split in bare.splits.values()) == 200
    assert all(20 <= len(bare.splits[name]) <= 22 for name in ("validation", "test")), "whole groups are held out"
    assert bare.task.labels == () and (bare.task.metric, bare.task.target) == ("bleu", "it")
    split = bare.splits["test"]
    assert split.targets is not None and split.labels == () and split.pairs is None
    assert set(zip(split.texts, split.targets, strict=True)) <= set(rows)


def test_rows_with_another_number_of_fields_than_data_columns(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("one two\tuno due\nthree\n")
    with pytest.raises(DataError) as error:
        load(tmp_path, source="a.tsv", **HEADLESS)
    assert error.value.problems == ("a.tsv:2: 1 field, but data.columns has 2",)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_columns_inside_columns(tmp_path: Path, kind: str) -> None:
    rows = pairs(60)
    cells = [{"id": i, "translation": {"en": a, "it": b}} for i, (a, b) in enumerate(rows)]
    if kind == "jsonl":
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, cells)))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(cells), tmp_path / "a.parquet")
    found = load(tmp_path, {"text": "translation.en", "target": "translation.it"}, source=f"a.{kind}")
    texts = [text for split in found.splits.values() for text in split.texts]
    assert sorted(texts) == sorted(a for a, _ in rows)
    with pytest.raises(DataError, match=r"found: id, translation, translation\.en, translation\.it") as error:
        load(tmp_path, {"text": "translation.eng", "target": "translation.it"}, source=f"a.{kind}")
    assert error.value.problems == ("no column 'translation.eng'; did you mean 'translation.en'?",)


def example(text: str, target: str, line: int = 1) -> Example:
    return Example(text, None, "", f"a.tsv:{line}", wording(text, None), target)


LONG = " ".join(["word"] * 30)
FILTERS: list[tuple[str, str, str | None]] = [
    # source, target, the filter that takes it
    ("a cat", "un gatto", None),
    ("a cat", "", "empty"),
    ("  ", "un gatto", "empty"),
    (LONG, "parola", "max_ratio"),
    ("parola", LONG, "max_ratio"),
    ("hi", "a b c d e f g h i j k l m n o p q r", None),  # 18 words against a floor of 6: three times
    ("hi", "a b c d e f g h i j k l m n o p q r s", "max_ratio"),
    (" ".join(["w"] * 41), " ".join(["p"] * 20), "max_words"),
    ("Debian  GNU", "debian gnu", "copies"),
]


@pytest.mark.parametrize(("text", "target", "taken"), FILTERS)
def test_row_49_what_each_filter_takes(text: str, target: str, taken: str | None) -> None:
    notes = Notes()
    kept = filtered([example(text, target)], FilterRecipe(max_words=40), notes)
    assert len(kept) == (taken is None)
    assert {name for name, count in notes.counts["filtered"].items() if count} == {taken} - {None}
    assert len(notes.warnings) == (taken is not None)
    if taken:
        assert notes.warnings[0].endswith("the first: a.tsv:1")


def test_row_49_pairs_that_stand_before() -> None:
    notes = Notes()
    rows = [example("a", "b", 1), example("a", "c", 2), example("a", "b", 3), example("A", "b", 4)]
    kept = filtered(rows, FilterRecipe(), notes)
    assert [row.place for row in kept] == ["a.tsv:1", "a.tsv:2", "a.tsv:4"]
    assert notes.counts["filtered"]["duplicates"] == 1


sides = st.text(alphabet="ab \u00e8", max_size=12)


@given(st.lists(st.tuples(sides, sides), max_size=30))
def test_filters_lose_nothing_uncounted_and_pass_what_they_passed_before(found: list[tuple[str, str]]) -> None:
    rows = [example(a, b, i) for i, (a, b) in enumerate(found)]
    notes, again = Notes(), Notes()
    kept = filtered(rows, FilterRecipe(), notes)
    assert len(kept) + sum(notes.counts["filtered"].values()) == len(rows)
    assert filtered(kept, FilterRecipe(), again) == kept
    off = FilterRecipe(empty=False, max_ratio=0, max_words=0, copies=False, duplicates=False)
    assert filtered(rows, off, Notes()) == tuple(rows)


def test_only_train_is_filtered_and_held_out_rows_are_refused(tmp_path: Path) -> None:
    train = [*pairs(50, 1), ("an empty side", ""), (LONG, "poco")]
    held = {"validation": tsv(tmp_path / "v.tsv", [*pairs(9, 2), (LONG + " x", "poco")])}
    held["test"] = tsv(tmp_path / "t.tsv", pairs(9, 3))
    found = load(tmp_path, train=tsv(tmp_path / "a.tsv", train), **held, **HEADLESS)
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 50, "validation": 10, "test": 9}
    assert found.notes["filtered"] == {"empty": 1, "max_words": 0, "max_ratio": 1, "copies": 0, "duplicates": 0}
    assert found.notes["rows"] == {"train": 50, "validation": 10, "test": 9}
    assert len(found.warnings) == 2
    tsv(tmp_path / "t.tsv", [*pairs(9, 3), ("one two", " ")])
    with pytest.raises(DataError, match="1 held-out row") as error:
        load(tmp_path, train="a.tsv", **held, **HEADLESS)
    assert error.value.problems == ("t.tsv:10 (test)",)


def test_rows_with_an_empty_side_never_come_into_a_split_that_is_made(tmp_path: Path) -> None:
    rows = [*pairs(100), *((f"nothing {i} for it", "") for i in range(40))]
    found = load(tmp_path, source=tsv(tmp_path / "a.tsv", rows), **HEADLESS)
    assert sum(found.notes["rows"].values()) == 100
    assert found.notes["dropped_empty"] == 40


def test_row_47_the_same_source_in_train_and_test(tmp_path: Path) -> None:
    train, test = pairs(60, 1), pairs(9, 2)
    leak = (train[3][0].upper(), "another translation")
    sources = {"train": tsv(tmp_path / "a.tsv", train), "test": tsv(tmp_path / "t.tsv", [*test, leak])}
    with pytest.raises(DataError, match="1 held-out row"):
        load(tmp_path, **sources, **HEADLESS)
    found = load(tmp_path, **sources, **HEADLESS, allow_leakage=True)
    assert found.notes["leakage"] == 1


@pytest.mark.parametrize("name", ["mono.txt", "mono.csv"])
def test_sentences_without_translations(tmp_path: Path, name: str) -> None:
    lines = [f"only this side number {i}" for i in range(7)]
    (tmp_path / name).write_text("\n".join([*(["en"] if name == "mono.csv" else []), *lines]) + "\n")
    found = load(tmp_path, source=tsv(tmp_path / "a.tsv", pairs(60), header=True), unlabelled=name)
    split = found.splits["unlabelled"]
    assert split.texts == tuple(lines)
    assert split.targets is None and split.labels == ()
    assert len(set(split.ids)) == 7


def test_two_translations_of_one_sentence_have_different_ids(tmp_path: Path) -> None:
    rows = [*pairs(60), ("one", "uno"), ("one", "l'uno")]
    found = load(tmp_path, source=tsv(tmp_path / "a.tsv", rows), **HEADLESS)
    ids = [name for split in found.splits.values() for name in split.ids]
    assert len(set(ids)) == len(ids) == len(rows)


@pytest.mark.parametrize(
    "change", [{"task": {"metric": "accuracy"}}, {"task": {"label": "x"}}, {"student": {"layers": 2}}]
)
def test_keys_of_another_kind_are_refused(change: dict[str, Any]) -> None:
    from distill.recipe import parse

    value = {"name": "toy", "data": {"source": "a.tsv"}, "teacher": {"model": "m"}, "task": TASK}
    with pytest.raises(RecipeError) as error:
        parse({**value, **change, "task": TASK | change.get("task", {})}, "recipe")
    assert "translation" in str(error.value)
