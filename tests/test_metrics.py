"""Metrics against hand-computed values, published intervals, scikit-learn and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import DataError
from distill.metrics import (
    accuracy,
    examples_needed,
    macro_f1,
    majority_baseline,
    paired_difference,
    score,
    wilson,
)

pytestmark = pytest.mark.runtime

columns = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n) for _ in range(3)])
)

# gold, predicted, labels, accuracy, macro-F1 (each F1 = 2 tp / (gold + predicted))
SCORES = [
    ([0, 1], [0, 1], 2, 1.0, 1.0),
    ([0, 1], [1, 0], 2, 0.0, 0.0),
    ([0, 0, 1, 1], [0, 1, 1, 1], 2, 0.75, (2 / 3 + 4 / 5) / 2),
    ([0, 0, 0, 0], [0, 0, 0, 0], 2, 1.0, 1.0),
    ([0, 0, 1, 2], [0, 0, 1, 1], 3, 0.75, (1 + 2 / 3 + 0) / 3),
    ([2], [2], 5, 1.0, 1.0),
]


@pytest.mark.parametrize(("gold", "predicted", "labels", "right", "f1"), SCORES)
def test_scores_by_hand(gold: list[int], predicted: list[int], labels: int, right: float, f1: float) -> None:
    assert accuracy(gold, predicted) == pytest.approx(right)
    assert macro_f1(gold, predicted, labels) == pytest.approx(f1)


# right, n, Wilson bounds: Newcombe 1998, table I (81/263, 15/148, 0/20, 1/29)
WILSON = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("right", "n", "low", "high"), WILSON)
def test_wilson_published(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


# flip rate, margin, examples: (1.96 / margin)^2 * rate
NEEDED = [(0.03, 0.01, 1153), (0.03, 0.0152, 499), (0.03, 0.0034, 9970), (0.0, 0.01, 1), (1.0, 1.96, 1)]


@pytest.mark.parametrize(("rate", "margin", "expected"), NEEDED)
def test_examples_needed(rate: float, margin: float, expected: int) -> None:
    assert examples_needed(rate, margin) == expected


@pytest.mark.parametrize(("rate", "margin"), [(-0.1, 0.1), (1.1, 0.1), (0.1, 0.0), (0.1, math.nan)])
def test_examples_needed_refuses(rate: float, margin: float) -> None:
    with pytest.raises(DataError, match="flip rate"):
        examples_needed(rate, margin)


def test_majority_baseline() -> None:
    assert majority_baseline([1, 1, 0], [1, 0, 0, 0]) == 0.25
    assert majority_baseline([0, 1], [0, 0, 1]) == pytest.approx(2 / 3)  # a tie goes to the lowest label
    assert majority_baseline([1, 1, 0], [1, 0, 0, 1], "macro_f1", 2) == pytest.approx((2 / 3 + 0) / 2)
    assert majority_baseline([2, 2], [0, 1]) == 0.0


BAD = [
    ([], [], "at least one label"),
    ([0, 1], [0], "one label per example"),
    ([0, 1], [0, 2], "row 1 has label 2, expected 0 .. 1"),
    ([0, -1], [0, 1], "row 1 has label -1"),
    ([0.0, 1.0], [0, 1], "whole numbers"),
    ([[0], [1]], [0, 1], "vector"),
]


@pytest.mark.parametrize(("gold", "predicted", "message"), BAD)
def test_bad_labels(gold: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score("macro_f1", gold, predicted, 2)


def test_all_problems_at_once() -> None:
    with pytest.raises(DataError) as caught:
        paired_difference("accuracy", [0, 9], [7, 0], [0, 1], 2)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("metric", ["f1", "", "Accuracy"])
def test_unknown_metric(metric: str) -> None:
    with pytest.raises(DataError, match="accuracy, macro_f1"):
        score(metric, [0], [0], 1)


def test_signatures_name_the_seed() -> None:
    assert score("accuracy", [0, 1], [0, 1], 2).signature == (
        "metric:accuracy|n:2|interval:wilson|confidence:0.95|version:1"
    )
    assert score("macro_f1", [0, 1], [0, 1], 2, seed=7, resamples=50).signature == (
        "metric:macro_f1|labels:present|n:2|interval:bootstrap-percentile|confidence:0.95|resamples:50|seed:7|version:1"
    )
    assert "seed:9" in paired_difference("accuracy", [0, 1], [0, 1], [0, 0], 2, seed=9).signature


def test_paired_interval_is_as_wide_as_the_formula() -> None:
    """30 of 1000 labels flipped: half-width 1.96 * sqrt(0.03 / 1000) = 1.07 points."""
    gold, a, b = np.zeros((3, 1000), dtype=np.int64)
    a[:15], b[15:30] = 1, 1
    difference = paired_difference("accuracy", gold, a, b, 2)
    assert difference.value == 0.0
    assert difference.flipped == 30
    assert not difference.decided
    assert (difference.high - difference.low) / 2 == pytest.approx(0.0107, abs=0.001)


def test_paired_difference_is_decided_when_it_is_clear() -> None:
    gold = np.zeros(200, dtype=np.int64)
    worse = np.repeat([0, 1], [150, 50])
    difference = paired_difference("accuracy", gold, gold, worse, 2)
    assert difference.decided
    assert difference.value == 0.25
    assert difference.low == pytest.approx(0.19, abs=0.015)  # 0.25 - 1.96 * sqrt(0.25 * 0.75 / 200)


def test_bootstrap_of_cells_equals_bootstrap_of_examples() -> None:
    """Drawing the cells' counts gives the interval that drawing the examples gives."""
    rng = np.random.default_rng(3)
    gold, predicted = rng.integers(0, 3, (2, 300))
    drawn = rng.integers(0, 300, (2000, 300))
    values = [macro_f1(gold[rows], predicted[rows], 3) for rows in drawn]
    expected = np.percentile(values, [2.5, 97.5])
    found = score("macro_f1", gold, predicted, 3, resamples=4000)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.006)


@settings(deadline=None, max_examples=50)
@given(columns)
def test_scores_stay_within_their_intervals(data: tuple[list[int], ...]) -> None:
    gold, a, b = data
    for metric in ("accuracy", "macro_f1"):
        found = score(metric, gold, a, 4, resamples=50)
        assert 0 <= found.low <= found.high <= 1
        assert 0 <= found.value <= 1
        difference = paired_difference(metric, gold, a, b, 4, resamples=50)
        assert -1 <= difference.low <= difference.high <= 1
        assert difference == paired_difference(metric, gold, a, b, 4, resamples=50)
    right = score("accuracy", gold, a, 4)
    assert right.low <= right.value <= right.high


@settings(deadline=None, max_examples=50)
@given(columns)
def test_swapping_the_models_turns_the_sign(data: tuple[list[int], ...]) -> None:
    gold, a, b = data
    forth, back = paired_difference("accuracy", gold, a, b, 4), paired_difference("accuracy", gold, b, a, 4)
    assert forth.value == pytest.approx(-back.value)
    assert forth.flipped == back.flipped
    same = paired_difference("macro_f1", gold, a, a, 4)
    assert (same.value, same.low, same.high, same.flipped) == (0, 0, 0, 0)


@settings(deadline=None, max_examples=50)
@given(columns)
def test_agrees_with_scikit_learn(data: tuple[list[int], ...]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    gold, predicted, _ = data
    assert accuracy(gold, predicted) == pytest.approx(sklearn.accuracy_score(gold, predicted))
    expected = sklearn.f1_score(gold, predicted, average="macro", zero_division=0)
    assert macro_f1(gold, predicted, 4) == pytest.approx(expected)
