"""How sure a BLEU or chrF is: intervals over sentences, and paired differences; all from 0 to 100.

sacrebleu's own bootstrap gives an interval to each system, but none to the difference of two, and scores every resample
row by row. Here resamples are weights on sentences: one matrix product gives the statistics of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.bleu import judge
from distill.errors import DataError
from distill.metrics import CONFIDENCE, Difference, Score

Statistics = NDArray[np.float64]


def score(
    metric: str,
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str | None = None,
    seed: int = 1,
    resamples: int = 1000,
) -> Score:
    """A corpus score with its 95 % bootstrap interval over sentences; `language` is the target's code.

    Raises:
        DataError: no sentences, or not as many hypotheses as references.
    """
    counter = judge(metric, language)
    statistics = _statistics(counter, hypotheses, references)
    values = _values(counter, _resampled(statistics, seed, resamples))
    low, high = np.percentile(values, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    signature = f"{_signature(counter)}|interval:bootstrap-percentile|resamples:{resamples}|seed:{seed}"
    return Score(metric, _value(counter, statistics), float(low), float(high), len(hypotheses), signature)


def paired_difference(
    metric: str,
    a: Sequence[str],
    b: Sequence[str],
    references: Sequence[str],
    language: str | None = None,
    seed: int = 1,
    resamples: int = 1000,
) -> Difference:
    """The score of `a` minus that of `b` on the same sentences, with its 95 % paired bootstrap interval (Koehn 2004).

    `flipped` counts the sentences that the two translate differently.

    Raises:
        DataError: no sentences, or not as many hypotheses as references.
    """
    counter = judge(metric, language)
    of_a, of_b = (_statistics(counter, hypotheses, references) for hypotheses in (a, b))
    apart = _values(counter, _resampled(of_a, seed, resamples)) - _values(counter, _resampled(of_b, seed, resamples))
    low, high = np.percentile(apart, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    signature = f"{_signature(counter)}|interval:paired-bootstrap-percentile|resamples:{resamples}|seed:{seed}"
    flipped = sum(x != y for x, y in zip(a, b, strict=True))
    value = _value(counter, of_a) - _value(counter, of_b)
    return Difference(metric, value, float(low), float(high), len(a), flipped, signature)


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Refuse what cannot be scored."""
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(
            f"expected one translation a reference, at least one; found {len(hypotheses)} for {len(references)}"
        )


def _statistics(counter: Any, hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """What a metric counts in each sentence: `(sentences, counts)`."""
    _check(hypotheses, references)
    return np.asarray(counter._extract_corpus_statistics(list(hypotheses), [list(references)]), np.float64)


def _resampled(statistics: Statistics, seed: int, resamples: int) -> Statistics:
    """The summed statistics of each resample: `(resamples, counts)`."""
    n = len(statistics)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.asarray(weights @ statistics, np.float64)


def _values(counter: Any, sums: Statistics) -> NDArray[np.float64]:
    """The score of each row of sums."""
    return np.array([counter._compute_score_from_stats(row.tolist()).score for row in sums])


def _value(counter: Any, statistics: Statistics) -> float:
    """The score of all sentences together."""
    return float(_values(counter, statistics.sum(0, keepdims=True))[0])


def _signature(counter: Any) -> str:
    """The settings of a metric, as sacrebleu writes them."""
    return str(counter.get_signature().format())
