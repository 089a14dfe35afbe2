"""Beam search over many sentences at once, with the results of transformers' `generate`.

At each position the best continuations of a sentence's beams are looked for, twice as many as beams: those of the
first half that end are finished hypotheses, the best of those that do not end go on. A sentence is done when its best
beam can no longer beat its worst finished hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.decoding import Decoding
from export.hypotheses import UNLIKELY, Hypothesis, Ids, Logits, Step, forbid, hypothesis, log_sums

CHUNK = 8

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Beams:
    """The beams of all sentences that are still worked on, and their finished hypotheses so far.

    `numbers` `(sentences,)` are the sentences' places in the batch. `running` and `ended` are tokens
    `(sentences, beams, max_length + 1)`, the start token first; scores and lengths are `(sentences, beams)`; a length
    of 0 is a place that no hypothesis has taken yet. `open` `(sentences,)`: whether a better hypothesis is possible.
    """

    numbers: Ids
    running: Ids
    scores: Logits
    ended: Ids
    ended_scores: Logits
    lengths: Ids
    open: Flags

    def only(self, kept: Ids) -> Beams:
        """Some of the sentences."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name)[kept] for field in fields(self)}
        return Beams(**parts)


@dataclass(frozen=True)
class Candidates:
    """Continuations, the likeliest first: scores, beams they go on from, and tokens, all `(sentences, 2 * beams)`."""

    scores: Logits
    beams: Ids
    tokens: Ids


def beam_search(step: Step, sentences: int, rules: Decoding, n_best: int) -> list[list[Hypothesis]]:
    """The `n_best` best of `rules.beams` beams for each sentence; a sentence that cannot improve leaves the batch."""
    beams = _fresh(sentences, rules)
    found: list[list[Hypothesis]] = [[] for _ in range(sentences)]
    rows: Ids | None = None
    kept: Ids | None = None
    for position in range(rules.max_length):
        newest = beams.running[:, : 1 if position == 0 else None, position].reshape(-1)
        candidates = _candidates(beams, step(newest, rows, kept), position, rules)
        beams, rows = _advance(beams, candidates, position, rules)
        going = beams.open & (position < rules.max_length - 1)
        for index in np.flatnonzero(~going):
            found[beams.numbers[index]] = _best(beams, int(index), n_best, rules)
        if not going.any():
            break
        kept = None if going.all() else np.flatnonzero(going)
        if kept is not None:
            beams, rows = beams.only(kept), rows[kept]
        rows = rows.reshape(-1)
    return found


def _fresh(sentences: int, rules: Decoding) -> Beams:
    """Beams before the first step; only the first of each sentence counts, for all are alike."""
    size = (sentences, rules.beams)
    scores = np.full(size, UNLIKELY, np.float32)
    scores[:, 0] = 0
    tokens = np.full((*size, rules.max_length + 1), rules.start, np.int64)
    return Beams(
        np.arange(sentences), tokens, scores, tokens.copy(), np.full(size, UNLIKELY, np.float32),
        np.zeros(size, np.int64), np.ones(sentences, np.bool_),
    )  # fmt: skip


def _candidates(beams: Beams, logits: Logits, position: int, rules: Decoding) -> Candidates:
    """The likeliest continuations of each sentence's beams; at the first position all beams share one row."""
    sentences, width = beams.scores.shape
    sums = log_sums(logits)
    written = beams.running[:, : 1 if position == 0 else None, : position + 1].reshape(len(logits), -1)
    forced = forbid(logits, written, position, rules)
    tokens, scores = _only(forced, len(logits)) if forced is not None else _likeliest(logits, 2 * width, sums)
    each = tokens.shape[1]
    totals = (scores.reshape(sentences, -1, each) + beams.scores[:, :, None]).reshape(sentences, -1)
    order = (-totals).argsort(1, kind="stable")[:, : 2 * width]
    rows, parents = np.arange(sentences)[:, None], order // each
    own = rows if position == 0 else rows * width + parents
    return Candidates(totals[rows, order], parents, tokens[own, order % each])


def _only(forced: int, rows: int) -> tuple[Ids, Logits]:
    """The one token that may stand here, which costs nothing, and a second place that nobody takes."""
    scores = np.tile(np.array([0, -np.inf], np.float32), (rows, 1))
    return np.full((rows, 2), forced), scores


def _likeliest(logits: Logits, count: int, sums: Logits) -> tuple[Ids, Logits]:
    """The `count` likeliest tokens of each row in their own order, so that the lower one wins a tie `(rows, count)`."""
    tokens = _highest(logits, count)
    tokens.sort(1)
    return tokens, np.take_along_axis(logits, tokens, 1) - sums[:, None]


def _highest(values: Logits, count: int) -> Ids:
    """Where the `count` highest of each row stand, in no order `(rows, count)`.

    They lie in those of a row's chunks whose maximum is highest, so that few values have to be compared; these maxima
    are found in the same way.
    """
    rows, width = values.shape
    chunks = width // CHUNK
    if chunks <= 2 * count:
        least = max(0, width - count)
        return values.argpartition(least, 1)[:, least:]
    maxima = values[:, : chunks * CHUNK].reshape(rows, CHUNK, chunks).max(1)
    inside = (_highest(maxima, count)[:, None] + chunks * np.arange(CHUNK)[:, None]).reshape(rows, -1)
    rest = np.arange(chunks * CHUNK, width)[None].repeat(rows, 0)
    places = np.concatenate([inside, rest], 1)
    found = np.take_along_axis(values, places, 1)
    return np.take_along_axis(places, found.argpartition(-count, 1)[:, -count:], 1)


def _advance(beams: Beams, found: Candidates, position: int, rules: Decoding) -> tuple[Beams, Ids]:
    """The beams after one position, and the former row of each `(sentences, beams)`."""
    rows, width = np.arange(len(beams.numbers))[:, None], rules.beams
    ends = (found.tokens == rules.end) | (position == rules.max_length - 1)
    after = _finish(beams, found, ends, position, rules)
    open_scores = found.scores + ends * UNLIKELY
    order = (-open_scores).argsort(1, kind="stable")[:, :width]
    scores, parents = open_scores[rows, order], found.beams[rows, order]
    running = beams.running[rows, parents]
    running[:, :, position + 1] = found.tokens[rows, order]
    worst = np.where(after.lengths > 0, after.ended_scores.min(1, keepdims=True), UNLIKELY)
    possible = (scores[:, :1] / np.float32((position + 1) ** rules.length_penalty) > worst).any(1)
    own = rows.repeat(width, 1) if position == 0 else rows * width + parents
    return replace(after, running=running, scores=scores, open=beams.open & possible), own


def _finish(beams: Beams, found: Candidates, ends: Flags, position: int, rules: Decoding) -> Beams:
    """The best finished hypotheses so far, those among the first candidates that just ended included."""
    width = rules.beams
    new = ends & (np.arange(ends.shape[1]) < width)
    if not new.any():
        return beams
    rows = np.arange(len(new))[:, None]
    scores = found.scores / np.float32((position + 1) ** rules.length_penalty) + ~new * UNLIKELY
    merged = np.concatenate([beams.ended_scores, scores], 1)
    order = (-merged).argsort(1, kind="stable")[:, :width]
    sequences = beams.running[rows, found.beams]
    sequences[:, :, position + 1] = found.tokens
    return replace(
        beams,
        ended=np.concatenate([beams.ended, sequences], 1)[rows, order],
        ended_scores=merged[rows, order],
        lengths=np.concatenate([beams.lengths, new * (position + 1)], 1)[rows, order],
    )


def _best(beams: Beams, index: int, n_best: int, rules: Decoding) -> list[Hypothesis]:
    """The best finished hypotheses of one sentence; fewer where fewer differ."""
    each = zip(beams.ended[index], beams.lengths[index], beams.ended_scores[index], strict=True)
    return [hypothesis(row[1 : n + 1], float(score), rules) for row, n, score in each if n and score > UNLIKELY / 2][
        :n_best
    ]
