"""The divergence from what was stored: by hand, against the whole distributions, and never more than theirs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from distill.word_loss import word_loss
from distill.words import Words, _likeliest, joined, padded_words


def stored(logits: torch.Tensor, kept: int, temperature: float = 1.0) -> Words:
    """What is kept of a teacher's logits `(words, pieces)`, as one translation."""
    pieces, logs, others = _likeliest(logits / temperature, kept)
    return Words(pieces.astype(np.uint16), logs, others, np.array([0, len(logits)]), temperature)


def loss(student: torch.Tensor, words: Words, labels: list[int], alpha: float) -> torch.Tensor:
    teacher = padded_words([{"words": words.of(0)}], len(labels))
    return word_loss(student[None], torch.tensor([labels]), teacher, words.temperature, alpha, 0.0)


def test_by_hand() -> None:
    """Teacher 1/2, 1/4, 1/8, 1/8, two pieces kept; student 1/4 each: 1/2, 1/4, 1/4 against 1/4, 1/4, 1/2."""
    teacher = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    words = stored(teacher, 2)
    pieces, logs = words.of(0)
    assert pieces.tolist() == [[0, 1]]
    assert np.exp(logs) == pytest.approx(np.array([[0.5, 0.25, 0.25]]), abs=1e-3)
    divergence = 0.5 * math.log(2) + 0 + 0.25 * math.log(0.5)
    student = torch.zeros(1, 4)
    assert float(loss(student, words, [3], 1.0)) == pytest.approx(divergence, abs=1e-3)
    assert float(loss(student, words, [3], 0.25)) == pytest.approx(0.25 * divergence + 0.75 * math.log(4), abs=1e-3)
    assert float(loss(student, words, [3], 0.0)) == pytest.approx(math.log(4), abs=1e-6)


numbers = st.lists(st.floats(-4, 4), min_size=6, max_size=6)


@given(numbers, numbers, st.integers(1, 9), st.sampled_from([1.0, 2.0, 4.0]))
def test_never_more_than_over_all_pieces_and_equal_where_all_are_kept(
    one: list[float], other: list[float], kept: int, temperature: float
) -> None:
    student, teacher = torch.tensor([one]), torch.tensor([other])
    soft = [functional.log_softmax(value / temperature, dim=-1) for value in (student, teacher)]
    whole = float(functional.kl_div(*soft, reduction="sum", log_target=True)) * temperature**2
    found = float(loss(student, stored(teacher, kept, temperature), [0], 1.0))
    assert -1e-3 <= found <= whole + 0.02 * temperature**2
    if kept >= 5:
        assert found == pytest.approx(whole, abs=0.02 * temperature**2)
    same = float(loss(teacher, stored(teacher, kept, temperature), [0], 1.0))
    assert same == pytest.approx(0, abs=1e-3 * temperature**2)


def test_the_gradient_pulls_towards_the_teacher() -> None:
    teacher = torch.randn(5, 50, generator=torch.Generator().manual_seed(0)) * 3
    student = torch.zeros(5, 50, requires_grad=True)
    words = stored(teacher, 8, 2.0)
    before = loss(student, words, [0] * 5, 1.0)
    before.backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()
    with torch.no_grad():
        assert float(loss(student - 5 * student.grad, words, [0] * 5, 1.0)) < float(before)


def test_rows_without_words_count_by_their_labels() -> None:
    teacher = torch.randn(2, 9, generator=torch.Generator().manual_seed(1))
    words = stored(teacher, 3)
    rows: list[dict[str, Any]] = [{"words": words.of(0)}, {}]
    logits = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([[4, 5, -100], [1, 2, 3]])
    found = word_loss(logits, labels, padded_words(rows, 3), 1.0, 1.0, 0.0)
    first = loss(logits[0, :2], words, [4, 5], 1.0) * 2
    second = functional.cross_entropy(logits[1], labels[1], reduction="sum")
    assert float(found) == pytest.approx(float(first + second) / 5, rel=1e-5)
    assert padded_words([{}, {"words": None}], 3) is None
    plain = word_loss(logits, labels, None, 2.0, 0.5, 0.1)
    expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    assert float(plain) == pytest.approx(float(expected), rel=1e-5)


def test_joined_in_order() -> None:
    parts = [stored(torch.randn(count, 9, generator=torch.Generator().manual_seed(count)), 3) for count in (2, 1, 4)]
    whole = joined(parts)
    assert whole.starts.tolist() == [0, 2, 3, 7]
    for row, part in enumerate(parts):
        for found, expected in zip(whole.of(row), part.of(0), strict=True):
            assert np.array_equal(found, expected)
