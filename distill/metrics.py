"""Scores that travel with their interval, their n and the way they were computed.

A score without an interval cannot say whether two models differ. Both bootstraps resample *examples*. Examples that
agree in all that the metric sees are one cell, and resampling n examples is drawing the cells' counts from one
multinomial: the same distribution as drawing indices, in a fraction of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distill.errors import DataError
from distill.task import METRICS

CONFIDENCE = 0.95
Z = 1.959963984540054
"""The 97.5 % point of the normal distribution, for two-sided 95 % intervals."""

Labels = NDArray[np.int64]
Weights = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """One metric on one split, with its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    signature: str


@dataclass(frozen=True)
class Difference:
    """How much better a is than b on the same examples, with its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    flipped: int
    """Examples on which the two give different labels, whoever is right."""
    signature: str

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero, so that one of the two may be called better."""
        return self.low > 0 or self.high < 0


def accuracy(gold: ArrayLike, predicted: ArrayLike) -> float:
    """The share of examples whose label is right; `gold` and `predicted` are `(n,)`.

    Raises:
        DataError: no examples, or lengths that differ.
    """
    gold_ids, predicted_ids = _labels(gold=gold, predicted=predicted)
    return float(np.mean(gold_ids == predicted_ids))


def macro_f1(gold: ArrayLike, predicted: ArrayLike, num_labels: int) -> float:
    """The mean F1 over the labels that occur in `gold` or in `predicted`, as scikit-learn counts it.

    Raises:
        DataError: no examples, lengths that differ, or a label outside `0 .. num_labels - 1`.
    """
    gold_ids, predicted_ids = _labels(num_labels, gold=gold, predicted=predicted)
    return compute("macro_f1", gold_ids, predicted_ids, num_labels)


def score(
    metric: str,
    gold: ArrayLike,
    predicted: ArrayLike,
    num_labels: int,
    seed: int = 1,
    resamples: int = 1000,
) -> Score:
    """A metric with its 95 % interval: Wilson's for accuracy, bootstrap percentiles for macro-F1.

    Raises:
        DataError: an unknown metric, no examples, lengths that differ, or a label out of range.
    """
    _known(metric)
    gold_ids, predicted_ids = _labels(num_labels, gold=gold, predicted=predicted)
    value, n = compute(metric, gold_ids, predicted_ids, num_labels), len(gold_ids)
    if metric == "accuracy":
        low, high = wilson(int(np.sum(gold_ids == predicted_ids)), n)
        return Score(metric, value, low, high, n, _signature(metric, n, "wilson"))
    cells, counts = _cells(gold_ids, predicted_ids)
    weights = _resample(counts, seed, resamples)
    low, high = _percentiles(_values(metric, cells[0], cells[1], weights, num_labels))
    return Score(metric, value, low, high, n, _signature(metric, n, "bootstrap-percentile", seed, resamples))


def paired_difference(
    metric: str,
    gold: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    num_labels: int,
    seed: int = 1,
    resamples: int = 2000,
) -> Difference:
    """The metric of `a` minus that of `b` on the same examples, with its 95 % paired bootstrap interval.

    Both models are scored on each resample, so what makes an example hard for both cancels out (Koehn 2004,
    "Statistical significance tests for machine translation evaluation"). With fewer than about ten flipped labels the
    interval is too narrow, and with none it has no width: see `examples_needed`.

    Raises:
        DataError: an unknown metric, no examples, lengths that differ, or a label out of range.
    """
    _known(metric)
    gold_ids, a_ids, b_ids = _labels(num_labels, gold=gold, a=a, b=b)
    value = compute(metric, gold_ids, a_ids, num_labels) - compute(metric, gold_ids, b_ids, num_labels)
    cells, counts = _cells(gold_ids, a_ids, b_ids)
    weights = _resample(counts, seed, resamples)
    of_a = _values(metric, cells[0], cells[1], weights, num_labels)
    low, high = _percentiles(of_a - _values(metric, cells[0], cells[2], weights, num_labels))
    n, flipped = len(gold_ids), int(np.sum(a_ids != b_ids))
    signature = _signature(metric, n, "paired-bootstrap-percentile", seed, resamples)
    return Difference(metric, value, low, high, n, flipped, signature)


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval for `right` of `n` (Wilson 1927); never leaves 0..1, works at 0 and n."""
    share, spread = right / n, Z * Z / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def examples_needed(flip_rate: float, margin: float) -> int:
    """Examples at which the 95 % half-width of a difference in accuracy falls to `margin`.

    The half-width is `1.96 * sqrt(flip_rate / n)`: only examples that the two models label differently carry
    variance. 3 % flipped labels and a margin of one point need 1 153.

    Raises:
        DataError: a flip rate outside 0..1, or a margin that is not above 0.
    """
    if not 0 <= flip_rate <= 1 or not 0 < margin < math.inf:
        raise DataError(f"expected 0 <= flip rate <= 1 and margin > 0, got {flip_rate} and {margin}")
    return max(1, math.ceil(flip_rate * (Z / margin) ** 2))


def majority_baseline(
    train_labels: ArrayLike, gold: ArrayLike, metric: str = "accuracy", num_labels: int | None = None
) -> float:
    """What the metric gives on `gold` to a model that always answers the commonest training label.

    A tie goes to the lowest label. Without `num_labels` it is one more than the largest label in sight.

    Raises:
        DataError: an unknown metric, no examples, or a label out of range.
    """
    _known(metric)
    (train_ids,) = _labels(num_labels, train=train_labels)
    (gold_ids,) = _labels(num_labels, gold=gold)
    count = num_labels or int(max(train_ids.max(), gold_ids.max())) + 1
    answer = int(np.argmax(np.bincount(train_ids, minlength=count)))
    return compute(metric, gold_ids, np.full_like(gold_ids, answer), count)


def _known(metric: str) -> None:
    """Refuse a metric that nobody computes."""
    if metric not in METRICS:
        raise DataError(f"metric {metric!r} is unknown; expected one of {', '.join(METRICS)}")


def _labels(num_labels: int | None = None, **columns: Any) -> list[Labels]:
    """Columns of label ids as equally long, non-empty integer vectors within range."""
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    problems = [f"{name}: {why}" for name, array in arrays.items() if (why := _wrong(array, num_labels))]
    if problems:
        raise DataError("labels cannot be scored", problems)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError("expected one label per example in each column", [f"{k}: {n}" for k, n in lengths.items()])
    return [array.astype(np.int64) for array in arrays.values()]


def _wrong(array: NDArray[Any], num_labels: int | None) -> str | None:
    """Why a column is not a vector of label ids, if it is not."""
    if array.ndim != 1 or len(array) == 0:
        return f"expected a vector with at least one label, got shape {array.shape}"
    if not np.issubdtype(array.dtype, np.integer):
        return f"expected whole numbers, got {array.dtype}"
    top = math.inf if num_labels is None else num_labels
    outside = np.flatnonzero((array < 0) | (array >= top))
    if len(outside):
        return f"row {outside[0]} has label {array[outside[0]]}, expected 0 .. {top - 1}"
    return None


def _cells(*columns: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct examples `(columns, cells)` and how often each occurs `(cells,)`."""
    cells, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
    return cells, counts


def _resample(counts: NDArray[np.int64], seed: int, resamples: int) -> Weights:
    """Bootstrap counts of the cells `(resamples, cells)`."""
    n = int(counts.sum())
    return np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)


def compute(metric: str, gold: Labels, predicted: Labels, num_labels: int) -> float:
    """A metric on all examples: `gold` and `predicted` are label ids `(examples,)`."""
    cells, counts = _cells(gold, predicted)
    return float(_values(metric, cells[0], cells[1], counts[None, :], num_labels)[0])


def _values(metric: str, gold: Labels, predicted: Labels, weights: Weights, num_labels: int) -> NDArray[np.float64]:
    """A metric on each resample: `gold` and `predicted` are `(cells,)`, `weights` is `(resamples, cells)`."""
    if metric == "accuracy":
        right = np.asarray(gold == predicted, dtype=np.int64)
        return np.asarray((weights @ right) / weights.sum(axis=1), dtype=np.float64)
    labels = np.arange(num_labels)[:, None]
    of_gold, of_predicted = labels == gold, labels == predicted
    true_positives = weights @ (of_gold & of_predicted).T.astype(np.int64)
    occurrences = weights @ (of_gold.astype(np.int64) + of_predicted).T
    f1 = 2 * true_positives / np.maximum(occurrences, 1)
    # A label that a resample holds neither as gold nor as prediction has no F1: it is left out, not counted as 0.
    return np.asarray(f1.sum(axis=1) / (occurrences > 0).sum(axis=1), dtype=np.float64)


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """The bounds between which 95 % of the resamples lie."""
    low, high = np.percentile(values, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def _signature(metric: str, n: int, interval: str, seed: int | None = None, resamples: int = 0) -> str:
    """How a number was computed, in one line that can be compared."""
    labels = "|labels:present" if metric == "macro_f1" else ""
    drawn = "" if seed is None else f"|resamples:{resamples}|seed:{seed}"
    return f"metric:{metric}{labels}|n:{n}|interval:{interval}|confidence:{CONFIDENCE}{drawn}|version:1"
