"""Which words may translate a source: a lexical shortlist, so that a step need not weigh the whole vocabulary.

For each piece of a source itself and the likeliest pieces of its translations, by IBM Model 1 (Brown et al. 1993) over
the training pairs; and for every source the pieces that are most frequent in all translations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from export.decoding import Decoding
from export.seq2seq.stacks import COMMON, NEAR

COMMON_PIECES = 200
ROUNDS = 4  # of expectation and maximisation
MOST_CELLS = 20_000_000  # meetings of a source and a target piece that are counted; bounds the memory

Ids = NDArray[np.int64]
Pair = tuple[Sequence[int], Sequence[int]]


def shortlist(pairs: Sequence[Pair], vocabulary: int, best: int, rules: Decoding) -> Mapping[str, NDArray[np.generic]]:
    """What `export.seq2seq.build` needs of a shortlist, learned from ids of sources and targets.

    Returns:
        For each piece of a source itself and `best` others `(vocabulary, best + 1)`, and pieces for any source
        `(pieces,)`, those that `rules` need among them.
    """
    targets = np.concatenate([np.asarray(target, np.int64) for _, target in pairs])
    counts = np.bincount(targets, minlength=vocabulary)
    frequent = np.argsort(-counts, kind="stable")[:COMMON_PIECES]
    needed = [rules.start, rules.end, rules.pad, rules.forced_start, rules.forced_end]
    common = np.union1d(frequent[counts[frequent] > 0], [piece for piece in needed if piece is not None])
    near = np.full((vocabulary, best + 1), rules.end, np.int64)
    near[:, 0] = np.arange(vocabulary)
    sources, found, chances = lexicon(pairs, vocabulary)
    fresh = ~np.isin(found, common)
    sources, found, chances = sources[fresh], found[fresh], chances[fresh]
    order = np.lexsort((found, -chances, sources))
    sources, found = sources[order], found[order]
    ranks = np.arange(len(sources)) - np.searchsorted(sources, sources)
    kept = ranks < best
    near[sources[kept], ranks[kept] + 1] = found[kept]
    narrow = np.uint16 if vocabulary <= np.iinfo(np.uint16).max + 1 else np.int32
    return {NEAR: near.astype(narrow), COMMON: common.astype(np.int64)}


def lexicon(pairs: Sequence[Pair], vocabulary: int) -> tuple[Ids, Ids, NDArray[np.float64]]:
    """Pieces of sources, pieces of targets and how likely the one becomes the other, each pair of pieces once."""
    cells = [*_cells(pairs, vocabulary)]
    known, places = np.unique(np.concatenate([each for each, _ in cells]), return_inverse=True)
    lengths = np.concatenate([each for _, each in cells])
    starts = np.cumsum(lengths) - lengths
    sources = known // vocabulary
    chances = np.ones(len(known))
    for _ in range(ROUNDS):
        shares = chances[places]
        shares /= np.repeat(np.add.reduceat(shares, starts), lengths)
        counts = np.bincount(places, shares, len(known))
        chances = counts / np.bincount(sources, counts)[sources]
    return sources, known % vocabulary, chances


def _cells(pairs: Sequence[Pair], vocabulary: int) -> Iterator[tuple[Ids, Ids]]:
    """For each pair every meeting of a source and a target piece, target by target, and the meetings of each target.

    Of more pairs than can be counted every second, or third, … is.
    """
    total = sum(len(source) * len(target) for source, target in pairs)
    for source, target in pairs[:: max(1, -(-total // MOST_CELLS))]:
        meetings = np.asarray(target, np.int64)[:, None] + np.asarray(source, np.int64) * vocabulary
        yield meetings.reshape(-1), np.full(len(target), len(source))
