"""Groups, shares and leaks, on rows small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest

from distill.errors import DataError
from distill.examples import Example, wording
from distill.splits import hold_out, leaks, near_duplicates, resembling


def test_near_duplicates_share_a_group() -> None:
    texts = [
        "the quick brown fox jumps over the lazy dog near the river bank today",
        "unrelated words about something else entirely",
        "the quick brown fox jumps over the lazy dog near the river bank tonight",
        "unrelated words about something else entirely",
        "",
        "!!!",
    ]
    groups = near_duplicates(texts)
    assert groups[0] == groups[2]
    assert groups[1] == groups[3]
    assert len({groups[0], groups[1], groups[4], groups[5]}) == 4


@pytest.mark.parametrize(
    ("a", "b", "together"),
    [
        # words and word pairs: {a b c d e f, ab bc cd de ef} and the same with g: 9 common of 13 = 0.69
        ("aa bb cc dd ee ff", "aa bb cc dd ee gg", False),
        # one word more in each: 11 common of 15 = 0.73
        ("aa bb cc dd ee ff gg", "aa bb cc dd ee ff hh", True),
        # 11 of 13, the words of one all in the other
        ("aa bb cc dd ee ff", "aa bb cc dd ee ff gg", True),
    ],
)
def test_the_threshold(a: str, b: str, together: bool) -> None:
    first, second = near_duplicates([a, b])
    assert (first == second) == together


def test_which_texts_resemble_others() -> None:
    others = ["the quick brown fox jumps over the lazy dog near the river bank today", "!!!"]
    texts = [
        "The quick, brown fox jumps over the lazy dog near the river bank tonight.".lower(),
        "something else",
        "!!!",
        "???",
        "something else",  # a near-duplicate of a text, not of one of the others
        others[0],
    ]
    assert resembling(texts, others).tolist() == [True, False, True, False, False, True]
    assert resembling(["!"], ["?"]).tolist() == [False]
    assert resembling(texts, []).tolist() == [False] * 6


def test_groups_do_not_depend_on_order() -> None:
    texts = [f"{word} film about a town number {i % 7}" for i, word in enumerate(["good", "bad", "dull", "warm"] * 20)]
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = near_duplicates([texts[place] for place in order])
    assert np.array_equal(shuffled, near_duplicates(texts)[order])


def test_only_marks_and_emoji() -> None:
    assert near_duplicates(["!", "😀", "!"]).tolist() == [0, 1, 0]


def test_many_like_texts_stay_cheap_and_together() -> None:
    texts = [f"dear customer your parcel number is waiting please call {number} now" for number in range(150)]
    assert len(set(near_duplicates(texts))) == 1


def test_shares_by_label() -> None:
    groups, labels = np.arange(1000), np.array([0] * 900 + [1] * 100)
    held = hold_out(groups, labels, 0.1, seed=1)
    assert held.sum() == 100
    assert held[900:].sum() == 10
    assert np.array_equal(held, hold_out(groups, labels, 0.1, seed=1))
    assert not np.array_equal(held, hold_out(groups, labels, 0.1, seed=2))


def test_groups_are_never_divided() -> None:
    groups = np.repeat(np.arange(50), 4)
    held = hold_out(groups, groups % 2, 0.2, seed=3)
    assert all(len(set(held[groups == group])) == 1 for group in range(50))
    assert held.sum() == 40


def test_a_rare_label_stays_in_train() -> None:
    labels = np.array([0] * 50 + [1] * 50 + [2])
    assert not hold_out(np.arange(101), labels, 0.5, seed=0)[100]


def test_a_label_that_lives_in_mixed_groups_stays_in_train() -> None:
    # Every row of label 2 is a near-duplicate of a row of label 0.
    groups, labels = np.arange(40) // 2, np.array([0, 2, 0, 0, 1, 1, 1, 1] * 5)
    for seed in range(20):
        held = hold_out(groups, labels, 0.5, seed)
        assert set(labels[~held]) == {0, 1, 2}


@pytest.mark.parametrize("rows", [1, 2])
def test_too_few_rows(rows: int) -> None:
    with pytest.raises(DataError, match="too few"):
        hold_out(np.arange(rows), np.arange(rows) % 2, 0.1, seed=0)


def example(text: str, place: str) -> Example:
    return Example(text, None, "a", place, wording(text, None))


def test_leaks_name_both_places() -> None:
    parts = {
        "train": [example("A film", "train.csv:2"), example("other", "train.csv:3")],
        "validation": [example("new", "valid.csv:2")],
        "test": [example("a  FILM", "test.csv:2"), example("new", "test.csv:3"), example("own", "test.csv:4")],
    }
    assert leaks(parts) == {
        "validation": [],
        "test": ["test.csv:2 (test) = train.csv:2 (train)", "test.csv:3 (test) = valid.csv:2 (validation)"],
    }
