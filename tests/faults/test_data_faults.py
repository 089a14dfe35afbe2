"""Rows 12, 39-47, 62 and 64 of the fault list: what is wrong with data is said once, in full, and costs exit 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distill import inputs
from distill.data import Dataset, read
from distill.errors import DataError, PotstillError, RunError
from distill.recipe import DataRecipe, TaskRecipe
from distill.table import Table

GOOD = "".join(f"row {i} {chr(97 + i % 26) * 3} {i * i} word{i * 7},{['no', 'yes'][i % 2]}\n" for i in range(60))


def load(folder: Path, content: str, task: dict[str, Any] | None = None, name: str = "a.csv", **data: Any) -> Dataset:
    (folder / name).write_text(content)
    data = {} if "train" in data else {"source": name, **data}
    return read(DataRecipe.model_validate(data), TaskRecipe.model_validate(task or {}), 42, folder, folder / "cache")


def load_parts(folder: Path, train: str, test: str, task: dict[str, Any] | None = None, **data: Any) -> Dataset:
    for name, content in (("train", train), ("valid", f"text,label\n{VALID}"), ("test", test)):
        (folder / f"{name}.csv").write_text(content)
    files = {"train": "train.csv", "validation": "valid.csv", "test": "test.csv"}
    recipe = DataRecipe.model_validate({**files, **data})
    return read(recipe, TaskRecipe.model_validate(task or {}), 42, folder, folder / "cache")


VALID = "quite another text,no\nand one more of them,yes\n"
TRAIN = f"text,label\n{GOOD}"


def test_row_12_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = inputs.read_table

    def read_and_write(path: Path, columns: Sequence[str] = ()) -> Table:
        table = original(path)
        path.write_text(path.read_text() + "late row,no\n")
        return table

    monkeypatch.setattr(inputs, "read_table", read_and_write)
    with pytest.raises(RunError, match="changed while they were read") as caught:
        load(tmp_path, TRAIN)
    assert caught.value.exit_code == 1
    assert str(tmp_path / "a.csv") in str(caught.value)


def test_row_39_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\ncaf\xe9,no\n")
    with pytest.raises(DataError, match=r"a\.csv: line 2, byte 14 of the file.*iconv -f") as caught:
        read(DataRecipe(source="a.csv"), TaskRecipe(), 42, tmp_path)
    assert caught.value.exit_code == 2


def test_row_41_bad_rows_are_all_named_or_counted(tmp_path: Path) -> None:
    bad = "".join(f"too,many,fields {i}\n" for i in range(25))
    with pytest.raises(DataError) as caught:
        load(tmp_path, TRAIN + bad)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("25 row(s) of a.csv cannot be used")
    assert lines[1] == "  - a.csv:62: 3 fields, but the header has 2"
    assert len(lines) == 12
    assert lines[-1] == "  (and 15 more)"
    dataset = load(tmp_path, TRAIN + bad, skip_bad_rows=True)
    assert dataset.notes["skipped_rows"] == {"train": 25}
    assert sum(dataset.notes["rows"].values()) == 60
    assert "25 broken row(s) of a.csv were skipped" in dataset.warnings[0]


@pytest.mark.parametrize("word", ["NA", "null", "None", "1e5", "007"])
def test_row_42_text_and_labels_stay_text(tmp_path: Path, word: str) -> None:
    rows = "".join(f"{word} text {i},{word}\nother {i},b\n" for i in range(30))
    dataset = load(tmp_path, f"text,label\n{rows}")
    assert word in dataset.task.labels
    assert all(text.startswith((f"{word} ", "other ")) for text in dataset.splits["train"].texts)


def test_row_43_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, TRAIN, {"text": "txt", "label": "lable"})
    assert str(caught.value).splitlines() == [
        "a.csv lacks a column that the recipe names; found: text, label",
        "  - no column 'txt'; did you mean 'text'?",
        "  - no column 'lable'; did you mean 'label'?",
    ]


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("a.csv", "text without label,\n", "a.csv:62: the label in column 'label' is missing"),
        ("a.csv", "text without label,  \n", "a.csv:62: the label in column 'label' is missing"),
        ("a.jsonl", '{"text": "a", "label": null}', "a.jsonl:61: column 'label' is missing or null"),
        ("a.jsonl", '{"text": "a"}', "a.jsonl:61: column 'label' is missing or null"),
        ("a.jsonl", '{"text": null, "label": "no"}', "a.jsonl:61: column 'text' is missing or null"),
        ("a.jsonl", '{"text": 1.5, "label": "no"}', "a.jsonl:61: column 'text': '1.5' is a float"),
        ("a.jsonl", '{"text": ["a"], "label": "no"}', "a.jsonl:61: column 'text': \"['a']\" is a list"),
    ],
)
def test_row_43_cells_that_are_not_there(tmp_path: Path, name: str, line: str, problem: str) -> None:
    rows = [row.split(",") for row in GOOD.splitlines()]
    jsonl = "".join(f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in rows)
    with pytest.raises(DataError) as caught:
        load(tmp_path, (TRAIN if name == "a.csv" else jsonl) + line, name=name)
    assert problem in str(caught.value)
    assert caught.value.message.startswith("1 row(s)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv is empty"),
        ("text,label\n", "a.csv holds no rows"),
        ("text,label\na,b,c\n", "a.csv holds no rows"),
        ("text,label\n" + "".join(f"row {i},same\n" for i in range(20)), "every row of a.csv has the label 'same'"),
        ("text,label\na,no\nb,yes\n", "too few to hold out"),
        ("text,label\na,no\n", "at least two different labels"),
    ],
)
def test_row_44_too_little_data(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, content)
    assert message in str(caught.value)


def test_row_44_a_label_with_one_row(tmp_path: Path) -> None:
    dataset = load(tmp_path, TRAIN + "only one of its kind,rare\n")
    assert dataset.notes["labels"]["train"]["rare"] == 1
    assert any("fewer than two rows in train" in warning and "'rare' (1)" in warning for warning in dataset.warnings)
    assert any("the test split has no row with these labels: 'rare'" in warning for warning in dataset.warnings)


def test_row_45_held_out_labels_that_train_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_parts(tmp_path, TRAIN, "text,label\na new one,maybe\nb new,maybe\nc new,Yes\n")
    assert str(caught.value).splitlines() == [
        "the test split has labels that train lacks (train has no, yes)",
        "  - 'Yes': 1 row(s), the first at test.csv:4",
        "  - 'maybe': 2 row(s), the first at test.csv:2",
    ]


def test_row_45_labels_the_recipe_does_not_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels that task\.labels does not list \(no, maybe\)") as caught:
        load(tmp_path, TRAIN, {"labels": ["no", "maybe"]})
    assert "'yes': 30 row(s), the first at a.csv:3" in str(caught.value)


def test_row_46_float_labels(tmp_path: Path) -> None:
    scores = "".join(f"some text {i},{i / 7:.3f}\n" for i in range(30))
    with pytest.raises(DataError, match="numbers with fractions as labels"):
        load(tmp_path, f"text,label\n{scores}")
    lines = "\n".join(f'{{"text": "{i}", "label": {i / 2}}}' for i in range(4))
    with pytest.raises(DataError, match="4 row"):
        load(tmp_path, lines, name="a.jsonl")


def test_row_47_leakage(tmp_path: Path) -> None:
    first = GOOD.splitlines()[0]
    test = f"text,label\nnew text,no\n{first.upper().replace('NO', 'no')}\n"
    with pytest.raises(DataError) as caught:
        load_parts(tmp_path, TRAIN, test)
    assert "1 held-out row(s) also stand" in str(caught.value)
    assert "test.csv:3 (test) = train.csv:2 (train)" in str(caught.value)
    dataset = load_parts(tmp_path, TRAIN, test, allow_leakage=True)
    assert dataset.notes["leakage_by_split"] == {"validation": 0, "test": 1}
    assert any("scores are too good" in warning for warning in dataset.warnings)


def test_row_47_one_text_two_labels(tmp_path: Path) -> None:
    dataset = load(tmp_path, TRAIN + "torn text here,no\ntorn text here,yes\n")
    assert dataset.notes["conflicting_labels"] == 1
    assert any("a.csv:63 against a.csv:62" in warning for warning in dataset.warnings)
    places = [name for name, split in dataset.splits.items() if "torn text here" in split.texts]
    assert len(places) == 1


def test_row_64_labels_that_yaml_would_turn_into_something_else(tmp_path: Path) -> None:
    dataset = load(tmp_path, TRAIN.replace(",yes", ",1"), {"labels": [1, "no"]})
    assert dataset.task.labels == ("1", "no")


def test_where_without_a_match(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.where lets no row of a\.csv through") as caught:
        load(tmp_path, TRAIN, where={"label": "perhaps"})
    assert "label: expected 'perhaps', found 'no', 'yes'" in str(caught.value)


def test_row_62_a_hub_name_without_a_network(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom distill.data import read\nfrom distill.recipe import DataRecipe, TaskRecipe\n"
        "from distill.errors import DataError\n"
        "try: read(DataRecipe(source='no-such-org/no-such-data'), TaskRecipe(), 1, Path('.'))\n"
        "except DataError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("no-such-org/no-such-data: neither a file nor a hub data set that can be fetched")
    assert "Traceback" not in result.stderr


def test_every_error_knows_its_exit_code() -> None:
    assert {DataError.exit_code, RunError.exit_code, PotstillError.exit_code} == {1, 2}
