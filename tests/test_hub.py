"""Hub data sets, read through `datasets` itself from a folder laid out as the hub would."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from distill.data import read
from distill.errors import DataError
from distill.hub import pick, read_hub
from distill.recipe import DataRecipe, TaskRecipe
from distill.sources import Hub


def write_split(path: Path, count: int, offset: int) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": [f"text {i + offset} word{i * 7}" for i in range(count)], "label": [i % 2 for i in range(count)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    write_split(tmp_path / "films" / "train.parquet", 40, 0)
    write_split(tmp_path / "films" / "test.parquet", 10, 1000)
    return Hub("films")


def test_splits_and_label_names(hub: Hub) -> None:
    splits = read_hub(hub)
    assert {name: len(table.rows) for name, table in splits.items()} == {"train": 40, "test": 10}
    assert splits["train"].rows[1].cells == {"text": "text 1 word7", "label": "good"}
    assert splits["test"].place(3) == "films test row 3"


def test_a_split_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(DataError, match="films has no validation split; it has train, test"):
        pick(read_hub(hub), "validation", hub)


def test_a_whole_data_set_keeps_its_splits(hub: Hub, tmp_path: Path) -> None:
    # From another folder the name is no path, as with a real hub name; `datasets` still finds the folder.
    dataset = read(DataRecipe(source="films"), TaskRecipe(), 42, tmp_path / "elsewhere")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 36, "validation": 4, "test": 10}
    assert dataset.task.labels == ("bad", "good")
    assert dataset.notes["made_splits"] == ["validation"]


def test_one_split_of_a_data_set(hub: Hub, tmp_path: Path) -> None:
    dataset = read(DataRecipe(train="films", unlabelled="films"), TaskRecipe(), 42, tmp_path / "elsewhere")
    assert dataset.notes["made_splits"] == ["test", "validation"]
    assert len(dataset.splits["unlabelled"]) == len(dataset.splits["train"])


def test_a_configuration_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(DataError, match="films:other: neither a file nor a hub data set") as caught:
        read_hub(Hub("films", "other"))
    assert "\n" not in str(caught.value)
