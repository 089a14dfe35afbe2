"""Losses against values worked out by hand, and the property that the factor T² is there for."""

from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.losses import UNLABELLED, distillation_loss, distillation_rows, hard_loss, soft_rows

LN3 = log(3)
# Student (0, ln 3) answers 1/4, 3/4; teacher (0, 0) answers 1/2, 1/2: KL = 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3.
KL = 0.5 * log(4 / 3)
# Teacher (0, ln 3), student (0, 0): KL = 1/4 ln 1/2 + 3/4 ln 3/2.
KL_BACK = 0.25 * log(0.5) + 0.75 * log(1.5)


def tensor(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "expected"),
    [
        ((0.0, LN3), (0.0, 0.0), 1.0, KL),
        ((0.0, 0.0), (0.0, LN3), 1.0, KL_BACK),
        ((0.0, 2 * LN3), (0.0, 0.0), 2.0, 4 * KL),
        ((0.0, 10 * LN3), (5.0, 5.0), 10.0, 100 * KL),
        ((1.0, 2.0), (1.0, 2.0), 3.0, 0.0),
        ((1.0, 2.0), (-4.0, -3.0), 3.0, 0.0),
    ],
)
def test_soft_rows(student: tuple[float, ...], teacher: tuple[float, ...], temperature: float, expected: float) -> None:
    assert soft_rows(tensor(student), tensor(teacher), temperature).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "labels", "smoothing", "expected"),
    [
        ([(0.0, LN3)], [1], 0.0, log(4 / 3)),
        ([(0.0, LN3)], [0], 0.0, log(4)),
        ([(0.0, LN3), (0.0, 0.0)], [1, 0], 0.0, (log(4 / 3) + log(2)) / 2),
        ([(0.0, LN3), (9.0, 0.0)], [1, UNLABELLED], 0.0, log(4 / 3)),
        ([(9.0, 0.0)], [UNLABELLED], 0.0, 0.0),
        # smoothed by 0.2, label 1 is 0.1, 0.9
        ([(0.0, LN3)], [1], 0.2, 0.1 * log(4) + 0.9 * log(4 / 3)),
        ([(0.0, LN3), (9.0, 0.0)], [1, UNLABELLED], 0.2, 0.1 * log(4) + 0.9 * log(4 / 3)),
    ],
)
def test_hard_loss(rows: list[tuple[float, ...]], labels: list[int], smoothing: float, expected: float) -> None:
    assert hard_loss(tensor(*rows), torch.tensor(labels), smoothing).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.0, log(4 / 3)), (1.0, 4 * KL), (0.25, 0.25 * 4 * KL + 0.75 * log(4 / 3))]
)
def test_alpha_weighs_the_two_parts(alpha: float, expected: float) -> None:
    student, teacher = tensor((0.0, 2 * LN3)), tensor((0.0, 0.0))
    hard = log(1 + 1 / 9)  # the hard part is not softened: the student answers 1/10, 9/10
    wanted = expected - (1 - alpha) * log(4 / 3) + (1 - alpha) * hard
    found = distillation_loss(student, teacher, torch.tensor([1]), 2.0, alpha)
    assert found.item() == pytest.approx(wanted, abs=1e-5)


def test_rows_without_a_label_learn_from_the_teacher_alone() -> None:
    student, teacher = tensor((0.0, LN3), (0.0, 0.0)), tensor((0.0, 0.0), (0.0, LN3))
    labels = torch.tensor([UNLABELLED, 0])
    rows = distillation_rows(student, teacher, labels, 1.0, 0.5)
    assert rows.tolist() == pytest.approx([0.5 * KL, 0.5 * KL_BACK + 0.5 * log(2)], abs=1e-6)
    whole = distillation_loss(student, teacher, labels, 1.0, 0.5)
    assert whole.item() == pytest.approx(0.5 * (KL + KL_BACK) / 2 + 0.5 * log(2), abs=1e-6)


def test_a_batch_without_labels_gives_a_finite_gradient() -> None:
    student = tensor((0.0, LN3), (1.0, 0.0)).requires_grad_()
    distillation_loss(student, torch.zeros(2, 2), torch.tensor([UNLABELLED] * 2), 2.0, 0.5).backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_half_precision_logits_are_softened_in_fp32() -> None:
    found = soft_rows(tensor((0.0, LN3)).bfloat16(), tensor((0.0, 0.0)).bfloat16(), 1.0)
    assert found.dtype == torch.float32


logits = st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(student=logits, teacher=logits, temperature=st.floats(2.0, 50.0))
def test_the_soft_gradient_keeps_its_size_whatever_the_temperature(
    student: list[float], teacher: list[float], temperature: float
) -> None:
    """For logits that are small against T the gradient is (z_s - z_t) / labels, both centred (Hinton et al., eq. 4)."""
    own = torch.tensor([student]).requires_grad_()
    soft_rows(own, torch.tensor([teacher]), temperature).sum().backward()
    difference = torch.tensor([student]) - torch.tensor([teacher])
    limit = (difference - difference.mean()) / 3
    assert own.grad is not None
    assert (own.grad - limit).norm().item() <= 0.4 * limit.norm().item() + 1e-4
