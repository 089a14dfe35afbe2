"""What is asked, as JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.task import Task

pytestmark = pytest.mark.runtime

WHOLE = {"kind": "classification", "labels": ["no", "yes"]}
names = st.text(max_size=8)


@given(
    labels=st.lists(names, min_size=2, max_size=6, unique=True),
    text=names,
    pair=st.none() | names,
    label=names,
    metric=st.sampled_from(["accuracy", "macro_f1"]),
    max_length=st.integers(3, 10_000),
)
def test_there_and_back(labels: list[str], **fields: Any) -> None:
    task = Task("classification", tuple(labels), **fields)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert task.num_labels == len(labels)


@given(
    text=names,
    target=names,
    source_language=st.none() | names,
    target_language=st.none() | names,
    metric=st.sampled_from(["bleu", "chrf"]),
    max_length=st.integers(3, 10_000),
    max_target_length=st.none() | st.integers(3, 10_000),
)
def test_translation_there_and_back(**fields: Any) -> None:
    task = Task("translation", (), **fields)
    told = task.to_json()
    assert Task.from_json(json.loads(json.dumps(told))) == task
    assert None not in told.values()
    assert not {"labels", "label", "pair"} & set(told)


def test_classification_says_nothing_about_translation() -> None:
    assert set(Task("classification", ("no", "yes")).to_json()) == {
        *("kind", "labels", "text", "label", "metric", "max_length")
    }


def test_translation_is_judged_by_bleu_unless_it_says_otherwise() -> None:
    assert Task.from_json({"kind": "translation"}) == Task("translation", (), metric="bleu")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"metric": "accuracy"}, "metric: expected one of bleu, chrf"),
        ({"labels": ["no", "yes"]}, "labels: expected none for translation"),
        ({"target": None}, "target: expected a column's name"),
        ({"source_language": 3}, "source_language: expected a language code or null"),
        ({"max_target_length": 2}, "max_target_length: expected a whole number of at least 3 or null, found 2"),
    ],
)
def test_what_does_not_fit_translation(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="^" + problem):
        Task.from_json({"kind": "translation", **change})


def test_what_is_left_out_has_a_default() -> None:
    assert Task.from_json(WHOLE) == Task("classification", ("no", "yes"))


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert Task.from_json({**WHOLE, "language": "la"}) == Task("classification", ("no", "yes"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "poetry"}, "kind: expected one of classification, translation, found 'poetry'"),
        ({"kind": None}, "kind:"),
        ({"labels": None}, "labels:"),
        ({"labels": "no yes"}, "labels:"),
        ({"labels": ["no"]}, "labels:"),
        ({"labels": ["no", "no"]}, "labels: expected a list of at least two different strings"),
        ({"labels": [0, 1]}, "labels:"),
        ({"max_length": 2}, "max_length: expected a whole number of at least 3, found 2"),
        ({"max_length": True}, "max_length:"),
        ({"max_length": 16.0}, "max_length:"),
        ({"max_length": "16"}, "max_length:"),
        ({"metric": "bleu"}, "metric: expected one of accuracy, macro_f1"),
        ({"text": None}, "text: expected a column's name"),
        ({"label": 3}, "label: expected a column's name"),
        ({"pair": 3}, "pair: expected a column's name or null"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="^" + problem):
        Task.from_json({**WHOLE, **change})


def test_all_problems_at_once() -> None:
    with pytest.raises(ValueError, match=r"kind: .*; labels: .*; max_length: ") as found:
        Task.from_json({"kind": 1, "max_length": 0})
    assert str(found.value).count(";") == 2


@pytest.mark.parametrize("value", [None, [], "task", 3])
def test_not_an_object(value: object) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        Task.from_json(value)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | names, lambda x: st.lists(x) | st.dictionaries(names, x))
)
def test_anything_else_is_only_a_value_error(value: object) -> None:
    for tried in (value, {**WHOLE, "labels": value}, {**WHOLE, "metric": value}, {**WHOLE, "kind": value}):
        try:
            Task.from_json(tried)
        except ValueError:
            continue
