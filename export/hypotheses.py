"""What both searches share: the model's step, what may be written next, and what was written in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distill.errors import BundleError
from export.decoding import Decoding

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
UNLIKELY = np.float32(-1e9)  # transformers' value for what must not be chosen
CACHED = 2**17  # so many floats stay in the second-level cache
LEAST = np.float32(1e-20)  # smaller sums of powers may have lost some of them


class Step(Protocol):
    """A model with a memory.

    `rows` are the former rows that each of the new ones goes on from (None: the same), `sentences` those of the former
    sentences that are still to be read (None: all). Logits may be overwritten by the caller.
    """

    def __call__(self, tokens: Ids, rows: Ids | None = None, sentences: Ids | None = None) -> Logits:
        """Logits `(rows, vocabulary)` after `tokens` `(rows,)`."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was written, without start and end token; its score; and whether only the length limit ended it.

    The score is the sum of the log-probabilities over the length to the power of the length penalty.
    """

    tokens: list[int]
    score: float | None
    stopped: bool


def hypothesis(tokens: Ids, score: float | None, rules: Decoding) -> Hypothesis:
    """Written tokens without the end token."""
    ended = bool(tokens[-1] == rules.end)
    stopped = len(tokens) == rules.max_length and (not ended or rules.forced_end is not None)
    return Hypothesis(tokens[: -1 if ended else None].tolist(), score, stopped)


def forbid(logits: Logits, written: Ids, position: int, rules: Decoding) -> int | None:
    """Put minus infinity where a token must not stand; or the one token that has to stand at this position.

    `written` `(rows, position + 1)` begins with the start token.
    """
    if position == rules.max_length - 1 and rules.forced_end is not None:
        return rules.forced_end
    if position == 0 and rules.forced_start is not None:
        return rules.forced_start
    if 0 < rules.no_repeat_ngram_size <= position + 1:
        _forbid_repeats(logits, written, rules.no_repeat_ngram_size)
    if rules.suppressed:
        logits[:, rules.suppressed] = -np.inf
    return None


def _forbid_repeats(logits: Logits, written: Ids, size: int) -> None:
    """Forbid every token that would complete an n-gram which the row already has."""
    count = written.shape[1] - size + 1
    same = np.ones((len(written), count), np.bool_)
    for offset in range(size - 1):
        same &= written[:, offset : offset + count] == written[:, [count + offset]]
    rows, starts = np.nonzero(same)
    logits[rows, written[rows, starts + size - 1]] = -np.inf


def log_sums(logits: Logits) -> Logits:
    """What has to be taken from logits `(rows, vocabulary)` to make them log-probabilities `(rows,)`.

    The highest logit of a row is first taken from the others only where their powers would leave the range of floats.

    Raises:
        BundleError: they are not finite.
    """
    sums = _power_sums(logits)
    if ((sums > LEAST) & (sums < np.inf)).all():
        return np.log(sums)
    highest = logits.max(-1, keepdims=True)
    sums = np.asarray(np.log(_power_sums(logits, highest)) + highest[:, 0], np.float32)
    require_numbers(sums)
    return sums


def _power_sums(logits: Logits, highest: Logits | None = None) -> Logits:
    """The sum of e to the power of each logit, less the `highest` `(rows, 1)` if given, for each row.

    A few rows at a time, which stay in the processor's cache from one pass to the next.
    """
    sums = np.empty(len(logits), np.float32)
    at_once = max(1, CACHED // max(1, logits.shape[1]))
    with np.errstate(over="ignore"):
        for start in range(0, len(logits), at_once):
            part = slice(start, start + at_once)
            powers = np.exp(logits[part] if highest is None else logits[part] - highest[part])
            np.einsum("ij->i", powers, out=sums[part])  # in half of the time that `sum` takes
    return sums


def require_numbers(values: Logits) -> None:
    """Refuse NaN and infinity; minus infinity is what forbidding everything leaves.

    Raises:
        BundleError: saying where they come from.
    """
    if not (values < np.inf).all():
        raise BundleError("the model answered with NaN or infinite logits: it is damaged or was trained to them")
