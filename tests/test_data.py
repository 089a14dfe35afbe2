"""A data set is what the recipe asked for, or an error that names every row to mend."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from distill.data import Dataset, Split, read
from distill.errors import DataError, RecipeError
from distill.recipe import DataRecipe, TaskRecipe

WORDS = [
    "river",
    "stone",
    "cloud",
    "paper",
    "engine",
    "garden",
    "window",
    "orange",
    "winter",
    "music",
    "planet",
    "bridge",
]


def rows(count: int, seed: int = 0, labels: tuple[str, ...] = ("no", "yes")) -> list[tuple[str, str]]:
    """Different texts with labels in turn."""
    choose = random.Random(seed)
    return [(f"{seed}-{i} " + " ".join(choose.choices(WORDS, k=8)), labels[i % len(labels)]) for i in range(count)]


def write(path: Path, content: list[tuple[str, str]]) -> str:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in content))
    return path.name


def load(folder: Path, task: dict[str, Any] | None = None, seed: int = 42, **data: Any) -> Dataset:
    return read(DataRecipe.model_validate(data), TaskRecipe.model_validate(task or {}), seed, folder, folder / "cache")


def test_one_file_is_split(tmp_path: Path) -> None:
    dataset = load(tmp_path, source=write(tmp_path / "a.csv", rows(200)))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 160, "validation": 20, "test": 20}
    assert dataset.task.labels == ("no", "yes")
    assert dataset.notes["labels"]["test"] == {"no": 10, "yes": 10}
    assert dataset.notes["made_splits"] == ["test", "validation"]
    texts = [text for split in dataset.splits.values() for text in split.texts]
    assert len(set(texts)) == 200
    assert dataset.warnings == ()


def test_the_split_follows_the_seed_and_not_the_order_of_rows(tmp_path: Path) -> None:
    content = rows(120)
    first = load(tmp_path, source=write(tmp_path / "a.csv", content))
    second = load(tmp_path, source=write(tmp_path / "b.csv", content[::-1]))
    third = load(tmp_path, source="a.csv", seed=1)
    assert set(first.splits["test"].texts) == set(second.splits["test"].texts)
    assert set(first.splits["test"].texts) != set(third.splits["test"].texts)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (("train", "validation", "test"), (100, 20, 20)),
        (("train", "test"), (90, 10, 20)),
        (("train", "validation"), (90, 20, 10)),
        (("train",), (80, 10, 10)),
    ],
)
def test_missing_splits_are_made_from_train(tmp_path: Path, given: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    contents = {"train": rows(100, 1), "validation": rows(20, 2), "test": rows(20, 3)}
    files = {name: write(tmp_path / f"{name}.csv", contents[name]) for name in given}
    dataset = load(tmp_path, **files)
    assert tuple(len(dataset.splits[name]) for name in ("train", "validation", "test")) == sizes
    assert list(dataset.splits) == ["train", "validation", "test"]


def test_labels_go_by_name(tmp_path: Path) -> None:
    train, test = [("a b c", "yes"), ("d e f", "no"), ("g h", "007")], [("i j", "no")]
    files = {"train": write(tmp_path / "a.csv", train), "validation": write(tmp_path / "b.csv", test)}
    files["test"] = write(tmp_path / "c.csv", [("k l", "007")])
    assert load(tmp_path, **files).task.labels == ("007", "no", "yes")
    ordered = load(tmp_path, {"labels": ["yes", "no", "007"]}, **files)
    assert ordered.splits["train"].labels == (0, 1, 2)
    assert ordered.splits["validation"].labels == (1,)
    assert ordered.splits["test"].labels == (2,)


def test_labels_get_better_names(tmp_path: Path) -> None:
    dataset = load(
        tmp_path,
        {"label_names": {"0": "negative", "1": "positive"}, "labels": ["positive", "negative"]},
        source=write(tmp_path / "a.csv", rows(40, labels=("0", "1"))),
    )
    assert dataset.task.labels == ("positive", "negative")


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        ([json.dumps({"text": str(i), "label": i % 2}) for i in range(40)], ("0", "1")),
        ([json.dumps({"text": str(i), "label": i % 2 == 0}) for i in range(40)], ("false", "true")),
    ],
)
def test_labels_are_always_text(tmp_path: Path, lines: list[str], labels: tuple[str, ...]) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert load(tmp_path, source="a.jsonl").task.labels == labels


def test_pairs(tmp_path: Path) -> None:
    lines = [{"q": f"question {i}", "a": f"answer {i}", "label": ["no", "yes"][i % 2]} for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    split = load(tmp_path, {"text": "q", "pair": "a"}, source="a.jsonl").splits["train"]
    assert split.pairs is not None
    assert [pair.split()[1] for pair in split.pairs] == [text.split()[1] for text in split.texts]


def test_where_keeps_rows_of_labelled_sources_only(tmp_path: Path) -> None:
    lines = ["text,label,source", *(f"{text},{label},{'ab'[i % 3 == 0]}" for i, (text, label) in enumerate(rows(90)))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    dataset = load(tmp_path, source="a.csv", where={"source": "a"}, unlabelled="a.csv")
    labelled = sum(len(dataset.splits[name]) for name in ("train", "validation", "test"))
    held_out = len(dataset.splits["validation"]) + len(dataset.splits["test"])
    assert labelled == 60
    assert len(dataset.splits["unlabelled"]) == 90 - held_out
    assert dataset.splits["unlabelled"].labels == ()
    assert dataset.notes["unlabelled_dropped"] == held_out


def test_unlabelled_text_needs_no_label(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("one more text\nand another\n")
    dataset = load(tmp_path, source=write(tmp_path / "a.csv", rows(40)), unlabelled="more.txt")
    assert dataset.splits["unlabelled"] == Split(("one more text", "and another"), None, ())


def test_repeated_rows_are_dropped_before_a_split(tmp_path: Path) -> None:
    content = rows(50)
    dataset = load(tmp_path, source=write(tmp_path / "a.csv", content + content))
    assert sum(dataset.notes["rows"].values()) == 50
    assert dataset.notes["dropped_duplicates"] == 50
    assert "50 row(s) that repeat" in dataset.warnings[0]


def test_ids_follow_the_text() -> None:
    expected = hashlib.sha256(b"a\0").hexdigest()[:16]
    assert Split(("a",), None, (0,)).ids == (expected,)
    assert Split(("a", "a"), ("", "b"), ()).ids[0] == expected
    assert len(set(Split(("a", "a"), ("", "b"), ()).ids)) == 2


def test_the_fingerprint_covers_task_rows_and_files(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows(40))
    first = load(tmp_path, source="a.csv").fingerprint
    assert load(tmp_path, source="a.csv").fingerprint == first
    (tmp_path / "moved").mkdir()
    (tmp_path / "a.csv").rename(tmp_path / "moved" / "b.csv")
    assert load(tmp_path, source="moved/b.csv").fingerprint == first
    others = [
        load(tmp_path, source="moved/b.csv", seed=1).fingerprint,
        load(tmp_path, {"max_length": 64}, source="moved/b.csv").fingerprint,
        load(tmp_path, {"labels": ["yes", "no"]}, source="moved/b.csv").fingerprint,
        load(tmp_path, source=write(tmp_path / "c.csv", [*rows(40), ("new row", "no")])).fingerprint,
    ]
    assert len({first, *others}) == 5


def test_unlabelled_rows_are_in_one_of_the_fingerprints(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows(40))
    (tmp_path / "more.txt").write_text("one more text\nand another\n")
    without, found = load(tmp_path, source="a.csv"), load(tmp_path, source="a.csv", unlabelled="more.txt")
    assert without.fingerprint == without.labelled_fingerprint == found.labelled_fingerprint != found.fingerprint


def test_a_dataset_is_frozen(tmp_path: Path) -> None:
    dataset = load(tmp_path, source=write(tmp_path / "a.csv", rows(40)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.task = None  # type: ignore[misc, assignment]


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no 'a\.csv'"):
        load(tmp_path, source="a.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path, source="folder")


@pytest.mark.parametrize("shares", [{"test": 0.0}, {"validation": 0.0}, {"validation": 0.5, "test": 0.5}])
def test_shares_that_leave_nothing(tmp_path: Path, shares: dict[str, float]) -> None:
    with pytest.raises(DataError, match="leaves a split empty"):
        load(tmp_path, source=write(tmp_path / "a.csv", rows(40)), split=shares)
