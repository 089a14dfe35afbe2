"""What the loops of a translation graph are told, and the hypotheses that they wrote (`export/seq2seq/build.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from distill.errors import BundleError
from export.decoding import Decoding
from export.hypotheses import UNLIKELY, Hypothesis, Ids, Logits, hypothesis

LOOP_ROWS = 4  # so many are written within the graph; 16 are faster in steps, for those that have ended leave them
SEARCHED = ("finished", "going", "continuations", "parents", "order", "places", "sums")

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Way:
    """One of the loops: its part of the graph's inputs, the outputs it makes, and what they say.

    The first of `outputs` are tokens, and the second are no numbers where a logit is none.
    """

    feed: Callable[[Decoding], Arrays]
    outputs: tuple[str, ...]
    hypotheses: Callable[..., list[list[Hypothesis]]]


def fits_loop(rules: Decoding, rows: int, scored: bool) -> bool:
    """Whether a loop of the graph writes what the searches outside of it would, and is faster."""
    if rules.no_repeat_ngram_size or turns(rules) < 1:
        return False
    return rows == 1 if rules.beams > 1 else rows <= LOOP_ROWS and not scored


def turns(rules: Decoding) -> int:
    """How many tokens of a translation are chosen rather than given."""
    return rules.max_length - (rules.forced_start is not None) - (rules.forced_end is not None)


def prefix(rules: Decoding, vocabulary: int) -> Arrays:
    """What both loops are told: where they begin, and what they never write."""
    tokens = [rules.start, *_forced(rules)]
    barred = np.zeros(vocabulary, np.float32)
    barred[list(rules.suppressed)] = -np.inf
    places = np.arange(len(tokens))
    return {"prefix": np.array(tokens), "positions": places, "end": np.array(rules.end), "barred": barred}


def _forced(rules: Decoding) -> list[int]:
    """What stands at the beginning of every translation."""
    return [] if rules.forced_start is None else [rules.forced_start]


def _greedy_feed(rules: Decoding) -> Arrays:
    """How long the greedy loop runs."""
    return {"turns": np.array(turns(rules))}


def _greedy(rules: Decoding, rows: int, _: int, tokens: Ids) -> list[list[Hypothesis]]:
    """The rows of the greedy loop.

    Raises:
        BundleError: there are not as many as sentences.
    """
    if tokens.shape[1:] != (rows,):
        raise BundleError(f"the model answered {tokens.shape}, expected tokens for {rows} sentences")
    return [[_until_end([*_forced(rules), *row], rules)] for row in tokens.T.tolist()]


def _until_end(tokens: list[int], rules: Decoding) -> Hypothesis:
    """One row, cut off after its end; or with the end that the model demands at the longest length."""
    if rules.end in tokens:
        tokens = tokens[: tokens.index(rules.end) + 1]
    elif rules.forced_end is not None:
        tokens = [*tokens, rules.forced_end]
    return hypothesis(np.array(tokens), None, rules)


def _beam_feed(rules: Decoding) -> Arrays:
    """How long the search runs, and with which beams."""
    scores = np.full(rules.beams, UNLIKELY, np.float32)
    scores[0] = 0
    last = -1 if rules.forced_end is not None else turns(rules) - 1
    return {
        "beam_turns": np.array(turns(rules)), "beam_scores": scores, "norms": _norms(rules), "last": np.array(last),
    }  # fmt: skip


def _norms(rules: Decoding) -> Logits:
    """What the score of a hypothesis is divided by that ends at each turn, and one after the last."""
    first = 1 + len(_forced(rules))
    return np.array([(first + turn) ** rules.length_penalty for turn in range(turns(rules) + 1)], np.float32)


def _searched(
    rules: Decoding, _: int, n_best: int, tokens: Ids, parents: Ids, order: Ids, places: Ids, *scores: Logits
) -> list[list[Hypothesis]]:
    """The best hypotheses of the search; `scores` are those of the finished ones, and of what went on.

    Raises:
        BundleError: its outputs do not fit each other.
    """
    width, shapes = rules.beams, [each.shape for each in (tokens, parents, order, places)]
    if shapes != [(len(tokens), 2 * width)] * 2 + [(len(tokens), width)] * 2:
        raise BundleError(f"the model answered {shapes}, expected what a search with {width} beams looked at")
    paths = _Paths(tokens.tolist(), parents.tolist(), order.tolist())
    ended = paths.ended(places.tolist(), width)
    finished, going = scores
    if rules.forced_end is not None and len(tokens) == turns(rules):
        ended, finished = _forced_to_end(rules, paths, ended, finished, going)
    best = (-finished).argsort(kind="stable")[:width]
    kept = [(ended[place], float(finished[place])) for place in best if ended[place]]
    found = [(text, score) for text, score in kept if score > UNLIKELY / 2][:n_best]
    return [[hypothesis(np.array([*_forced(rules), *text]), score, rules) for text, score in found]]


def _forced_to_end(
    rules: Decoding, paths: _Paths, ended: list[list[int]], finished: Logits, going: Logits
) -> tuple[list[list[int]], Logits]:
    """Finished hypotheses with those beside them that the longest length ends, if these may be better."""
    norms, last = _norms(rules), len(paths.tokens) - 1
    if not going[0] / norms[last] > finished.min():
        return ended, finished
    cut = [[*paths.back(last, place), cast(int, rules.forced_end)] for place in paths.order[last]]
    return [*ended, *cut], np.concatenate([finished, going / norms[-1]])


@dataclass(frozen=True)
class _Paths:
    """What a search looked at: at each turn tokens and the beams they go on from, and which of them went on."""

    tokens: list[list[int]]
    parents: list[list[int]]
    order: list[list[int]]

    def ended(self, places: list[list[int]], width: int) -> list[list[int]]:
        """The tokens of the best finished hypotheses; empty where there are not as many as beams."""
        kept: list[tuple[int, int]] = [(-1, 0)] * width
        for turn, chosen in enumerate(places):
            pool = [*kept, *((turn, place) for place in range(width))]
            kept = [pool[place] for place in chosen]
        return [self.back(*each) for each in kept]

    def back(self, turn: int, place: int) -> list[int]:
        """The tokens that lead to what was looked at in a place of a turn; none before the first turn."""
        found: list[int] = []
        while turn >= 0:
            found.append(self.tokens[turn][place])
            beam, turn = self.parents[turn][place], turn - 1
            place = self.order[turn][beam] if turn >= 0 else 0
        return found[::-1]


GREEDILY = Way(_greedy_feed, ("tokens", "highest"), _greedy)
SEARCHING = Way(_beam_feed, ("continuations", "sums", "parents", "order", "places", "finished", "going"), _searched)
