"""Splits that can be trusted: near-duplicates stay together, classes keep their shares, leaks are counted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import train_test_split

from distill.errors import DataError
from distill.examples import Example

JACCARD = 0.7
"""Two texts with at least this share of common words and word pairs count as one."""
MOST_COMMON = 200
"""A word in more texts than this proposes no candidates: the cost would grow with the square of the texts."""
RAREST = 24
"""Words of a text that propose candidates; texts of more than about 80 words and word pairs have more that could."""
BEGINNING = 1000
"""Characters that are compared: texts that begin alike for that long are near-duplicates whatever follows."""
CHUNK = 2048


def near_duplicates(texts: Sequence[str]) -> NDArray[np.int64]:
    """The group `(texts,)` of each text; texts joined by a chain of near-duplicates share one.

    Groups are numbered by their alphabetically first text, so the order of `texts` does not matter.
    """
    unique, positions = np.unique(np.array(texts, dtype=object), return_inverse=True)
    if not any(re.search(r"\w", text[:BEGINNING]) for text in unique):
        return positions.astype(np.int64)
    words = _words(list(unique))
    left, right = _pairs(words, len(unique))
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(unique), len(unique)))
    _, groups = connected_components(edges, directed=False)
    return _numbered(groups)[positions]


def resembling(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts `(texts,)` are near-duplicates of one of `others`."""
    known, both = set(others), [*others, *texts]
    found = np.array([text in known for text in texts], np.bool_)
    if others and any(re.search(r"\w", text[:BEGINNING]) for text in both):
        _, right = _pairs(_words(both), len(others))
        found[right[right >= len(others)] - len(others)] = True
    return found


def _words(texts: Sequence[str]) -> csr_array:
    """Which words and word pairs `(texts, different ones)` the beginning of each text has."""
    vectorizer = CountVectorizer(binary=True, ngram_range=(1, 2), token_pattern=r"(?u)\w+", dtype=np.int32)
    return csr_array(vectorizer.fit_transform([text[:BEGINNING] for text in texts]))


def _numbered(groups: NDArray[np.int32]) -> NDArray[np.int64]:
    """Group numbers in the order of first appearance."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _pairs(words: csr_array, first: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of one of the `first` rows and a later row, at least `JACCARD` alike, that share a rare enough word.

    Candidates come from prefixes: with words sorted from rare to common, two sets of Jaccard t or more
    share one of the first |x| - ceil(t |x|) + 1 words of each (Bayardo, Ma and Srikant 2007).
    """
    prefixes = _prefixes(words)
    sizes = np.diff(words.indptr)
    transposed = prefixes.T.tocsr()
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for start in range(0, first, CHUNK):
        candidates = (prefixes[start : min(start + CHUNK, first)] @ transposed).tocoo()
        left, right = candidates.coords[0].astype(np.int64) + start, candidates.coords[1].astype(np.int64)
        small, large = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
        once = (left < right) & (small >= JACCARD * large)
        left, right = left[once], right[once]
        alike = _jaccard(words, sizes, left, right) >= JACCARD
        found.append((left[alike], right[alike]))
    return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])


def _prefixes(words: csr_array) -> csr_array:
    """Each row's rarest words, as many as two near-duplicates must have one of in common."""
    frequency = np.bincount(words.indices, minlength=words.shape[1])
    sizes = np.diff(words.indptr)
    rows = np.repeat(np.arange(words.shape[0]), sizes)
    order = np.lexsort((words.indices, frequency[words.indices], rows))
    rank = np.arange(len(order)) - np.repeat(words.indptr[:-1], sizes)
    length = sizes - np.ceil(JACCARD * sizes).astype(np.int64) + 1
    columns = words.indices[order]
    kept = (rank < length[rows]) & (frequency[columns] > 1) & (frequency[columns] <= MOST_COMMON)
    before = np.cumsum(kept) - kept
    kept &= before - before[words.indptr[:-1].clip(max=len(order) - 1)][rows] < RAREST
    ones = np.ones(int(kept.sum()), dtype=np.int32)
    return csr_array((ones, (rows[kept], columns[kept])), shape=words.shape)


def _jaccard(
    words: csr_array, sizes: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Common words over all words, for each pair of rows `(pairs,)`."""
    scores = np.zeros(len(left))
    for start in range(0, len(left), CHUNK):
        a, b = left[start : start + CHUNK], right[start : start + CHUNK]
        common = np.asarray(words[a].multiply(words[b]).sum(axis=1)).ravel()
        scores[start : start + CHUNK] = common / (sizes[a] + sizes[b] - common)
    return scores


def hold_out(groups: NDArray[np.int64], labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose the rows to hold out `(rows,)`: about `share` of the groups of each label, groups never divided.

    A label with one group stays, and so does the last group that holds a label. Which rows are chosen depends on
    `seed`, not on their order.

    Raises:
        DataError: too few different rows for each label to stand on both sides.
    """
    names, members = np.unique(groups, return_inverse=True)
    group_labels = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(group_labels, members, labels)
    values, counts = np.unique(group_labels, return_counts=True)
    divisible = np.flatnonzero(np.isin(group_labels, values[counts > 1]))
    classes = int((counts > 1).sum())
    size = max(math.ceil(share * len(divisible)), classes)
    if not classes or len(divisible) - size < classes:
        raise DataError(
            f"{len(names)} different rows with {len(values)} labels are too few to hold out {share:.0%}; "
            "add rows, or give validation and test files"
        )
    _, held = train_test_split(divisible, test_size=size, random_state=seed, stratify=group_labels[divisible])
    chosen = np.zeros(len(names), dtype=np.bool_)
    chosen[held] = True
    lost = np.setdiff1d(labels, labels[~chosen[members]])
    chosen[members[np.isin(labels, lost)]] = False
    return chosen[members]


def leaks(parts: Mapping[str, Sequence[Example]]) -> dict[str, list[str]]:
    """For each held-out split, the rows whose wording also stands in a split before it (train, validation, test)."""
    seen: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for split, examples in parts.items():
        found[split] = [f"{row.place} ({split}) = {seen[row.key]}" for row in examples if row.key in seen]
        for row in examples:
            seen.setdefault(row.key, f"{row.place} ({split})")
    del found["train"]
    return found
