"""Both searches on models small enough to be searched by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distill.errors import BundleError
from export.beams import _likeliest
from export.decode import search
from export.decoding import Decoding
from export.hypotheses import Ids, Logits, log_sums

pytestmark = pytest.mark.runtime

START, END, PAD = 0, 1, 2


class Table:
    """A model whose logits depend on the sentence and the last token: `(sentences, vocabulary, vocabulary)`."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.logits, self.sentences = logits, np.arange(len(logits))
        self.written: Ids = np.zeros((len(logits), 0), np.int64)
        self.sizes: list[int] = []

    def __call__(self, tokens: Ids, rows: Ids | None = None, sentences: Ids | None = None) -> Logits:
        if sentences is not None:
            self.sentences = self.sentences[sentences]
        self.written = np.concatenate([self.written if rows is None else self.written[rows], tokens[:, None]], 1)
        self.sizes.append(len(tokens))
        beams = len(tokens) // len(self.sentences)
        return self.logits[self.sentences.repeat(beams), tokens].copy()


def random_table(sentences: int, vocabulary: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, (sentences, vocabulary, vocabulary)).astype(np.float32)


def best_of_all(logits: NDArray[np.float32], longest: int, penalty: float) -> tuple[list[int], float]:
    """The best hypothesis of all there are, by trying each."""
    found = []
    vocabulary = len(logits)
    highest = logits.max(-1, keepdims=True)
    log = logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True))
    others = [token for token in range(vocabulary) if token != END]
    for length in range(1, longest + 1):
        lasts = [END] if length < longest else range(vocabulary)
        for body, last in itertools.product(itertools.product(others, repeat=length - 1), lasts):
            whole = [START, *body, last]
            score = sum(log[a, b] for a, b in itertools.pairwise(whole)) / length**penalty
            found.append((float(score), [token for token in whole[1:] if token != END]))
    score, tokens = max(found)
    return tokens, score


@given(st.integers(0, 200), st.sampled_from([0.0, 1.0]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_as_many_beams_as_hypotheses_find_the_best(seed: int, penalty: float) -> None:
    logits = random_table(1, 4, seed)
    rules = Decoding(START, END, PAD, max_length=3, beams=48, length_penalty=penalty)
    [[found, *_]] = search(Table(logits), 1, rules)
    tokens, score = best_of_all(logits[0], 3, penalty)
    assert found.score == pytest.approx(score, abs=1e-5)
    assert found.tokens == tokens


@given(st.integers(0, 200), st.integers(2, 5), st.integers(1, 8))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_batch_answers_as_its_sentences_alone(seed: int, beams: int, longest: int) -> None:
    logits = random_table(5, 12, seed)
    rules = Decoding(START, END, PAD, max_length=longest, beams=beams)
    together = search(Table(logits), 5, rules, n_best=beams)
    alone = [search(Table(logits[[row]]), 1, rules, n_best=beams)[0] for row in range(5)]
    assert [[each.tokens for each in row] for row in together] == [[each.tokens for each in row] for row in alone]


@given(st.integers(0, 200), st.integers(1, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_hypotheses_come_best_first_and_once(seed: int, beams: int) -> None:
    rules = Decoding(START, END, PAD, max_length=6, beams=beams, suppressed=(PAD,))
    for hypotheses in search(Table(random_table(4, 9, seed)), 4, rules, n_best=beams, scored=True):
        scores = [each.score for each in hypotheses]
        assert scores == sorted(scores, reverse=True, key=lambda score: score or 0)
        assert len({(*each.tokens, each.stopped) for each in hypotheses}) == len(hypotheses)
        assert not any(PAD in each.tokens or END in each.tokens for each in hypotheses)


def chain(*successors: int) -> NDArray[np.float32]:
    """One sentence whose every token has one likely successor."""
    logits = np.zeros((1, len(successors), len(successors)), np.float32)
    logits[0, range(len(successors)), successors] = 9
    return logits


@pytest.mark.parametrize("beams", [1, 3])
def test_endless_repetition_ends_at_the_longest_length(beams: int) -> None:
    rules = Decoding(START, END, PAD, max_length=7, beams=beams)
    [[found]] = search(Table(chain(3, 1, 2, 3)), 1, rules)
    assert found.tokens == [3] * 7
    assert found.stopped


@pytest.mark.parametrize("beams", [1, 3])
def test_what_ends_by_itself_was_not_stopped(beams: int) -> None:
    rules = Decoding(START, END, PAD, max_length=3, beams=beams)
    [[found]] = search(Table(chain(3, 1, 2, 4, 1)), 1, rules)
    assert (found.tokens, found.stopped) == ([3, 4], False)


def test_an_end_that_was_forced_counts_as_stopped() -> None:
    rules = Decoding(START, END, PAD, max_length=3, forced_end=END)
    [[found]] = search(Table(chain(3, 1, 2, 3)), 1, rules)
    assert (found.tokens, found.stopped) == ([3, 3], True)


def test_the_first_token_can_be_forced() -> None:
    rules = Decoding(START, END, PAD, max_length=4, forced_start=4)
    [[found]] = search(Table(chain(3, 1, 2, 3, 1)), 1, rules, scored=True)
    assert found.tokens == [4]
    assert found.score == pytest.approx((9 - np.log(np.exp(9) + 4)) / 2, abs=1e-5)  # the forced token costs nothing


@pytest.mark.parametrize(
    ("size", "tokens"),
    [(0, [3, 4, 3, 4, 3]), (1, [3, 4, 2]), (2, [3, 4, 3, 2]), (3, [3, 4, 3, 4, 2])],
)
def test_repeated_ngrams_are_not_written(size: int, tokens: list[int]) -> None:
    # 0 -> 3 -> 4 -> 3 …; 2 is second best after both, and the end comes after it
    logits = chain(3, 1, 1, 4, 3)
    logits[0, [3, 4], 2] = 5
    rules = Decoding(START, END, PAD, max_length=5, no_repeat_ngram_size=size)
    assert search(Table(logits), 1, rules)[0][0].tokens[:5] == tokens


def test_finished_sentences_leave_the_batch() -> None:
    logits = np.concatenate([chain(1, 1, 1, 1), chain(3, 1, 1, 3), chain(3, 1, 1, 1)])
    table = Table(logits)
    found = search(table, 3, Decoding(START, END, PAD, max_length=4))
    assert table.sizes == [3, 2, 1, 1]
    assert [each[0].tokens for each in found] == [[], [3] * 4, [3]]


def test_no_sentences() -> None:
    for beams in (1, 2):
        assert search(Table(random_table(0, 4, 0)), 0, Decoding(START, END, PAD, max_length=2, beams=beams)) == []


@given(st.integers(1, 4), st.integers(1, 2000), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_likeliest_are_the_highest(rows: int, vocabulary: int, count: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(rows, vocabulary)).astype(np.float32)
    tokens, values = _likeliest(logits, count, np.zeros(rows, np.float32))
    np.testing.assert_array_equal(np.sort(values, 1), np.sort(logits, 1)[:, -count:])
    np.testing.assert_array_equal(np.take_along_axis(logits, tokens, 1), values)


@pytest.mark.parametrize("shift", [0, 60, 1000, -60, -1000])
def test_log_sums_are_those_of_wider_numbers(shift: float) -> None:
    logits = (np.random.default_rng(3).normal(0, 5, (40, 5000)) + shift).astype(np.float32)
    wide = logits.astype(np.float64)
    highest = wide.max(-1)
    wanted = highest + np.log(np.exp(wide - highest[:, None]).sum(-1))
    np.testing.assert_allclose(log_sums(logits), wanted, rtol=2e-7, atol=1e-6)


def test_log_sums_of_rows_far_from_each_other() -> None:
    logits = np.array([[0, 0], [-500, -500], [500, 500]], np.float32)
    np.testing.assert_allclose(log_sums(logits), np.array([0, -500, 500]) + np.log(2), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_have_no_log_sum(bad: float) -> None:
    with pytest.raises(BundleError), np.errstate(invalid="ignore"):
        log_sums(np.array([[0, 1], [bad, 0]], np.float32))
