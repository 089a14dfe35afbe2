"""The loss of a word against what autograd makes of its formula: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from distill.word_loss import word_loss

WORDS, PIECES, KEPT = 7, 12, 3


def asked(seed: int, temperature: float) -> dict[str, torch.Tensor]:
    """What a teacher says at two sentences of `WORDS` words; the last two words of the first it was not asked about."""
    logits = torch.randn(2, WORDS, PIECES, generator=torch.Generator().manual_seed(seed)) * 2
    logs, pieces = functional.log_softmax(logits / temperature, dim=-1).topk(KEPT, dim=-1)
    others = torch.log1p(-logs.exp().sum(-1, keepdim=True))
    there = torch.ones(2, WORDS, dtype=torch.bool)
    there[0, -2:] = False
    logs[0, -2:] = 0.0  # as padding has it
    return {"pieces": pieces, "logs": torch.cat([logs, others.masked_fill(~there[..., None], 0.0)], -1), "there": there}


def by_formula(
    logits: torch.Tensor, labels: torch.Tensor, teacher: Any, temperature: float, alpha: float, smoothing: float
) -> torch.Tensor:
    """Word by word, as the docstring has it."""
    total, count = torch.zeros(()), 0
    for row in range(2):
        for word in range(WORDS):
            label = labels[row, word]
            if label == -100:
                continue
            count += 1
            hard = functional.cross_entropy(logits[row, word], label, label_smoothing=smoothing)
            if teacher is None or not teacher["there"][row, word]:
                total = total + hard
                continue
            student = functional.softmax(logits[row, word] / temperature, dim=-1)
            known = student[teacher["pieces"][row, word]]
            found = torch.cat([known, 1 - known.sum()[None]])
            logs = teacher["logs"][row, word]
            soft = (logs.exp() * (logs - found.log())).sum()
            total = total + alpha * temperature**2 * soft + (1 - alpha) * hard
    return total / count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (1.0, 1.0), (1.0, 0.0), (2.0, 0.5), (3.0, 1.0)])
@pytest.mark.parametrize("words", [True, False])
def test_values_and_gradients(temperature: float, alpha: float, smoothing: float, words: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, WORDS, PIECES, generator=generator) * 2
    labels = torch.randint(0, PIECES, (2, WORDS), generator=generator)
    labels[1, -1] = -100
    teacher = asked(4, temperature) if words else None
    results = []
    for loss in (word_loss, by_formula):
        student = logits.clone().requires_grad_()
        value = loss(student, labels, teacher, temperature, alpha, smoothing)
        (value * 3).backward()  # as gradient accumulation scales it
        results.append((value.detach(), student.grad))
    (value, gradient), (expected, expected_gradient) = results
    assert gradient is not None and expected_gradient is not None
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_logits_stay_as_they_are_and_half_precision_gets_half_gradients() -> None:
    logits = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).requires_grad_()
    before = logits.detach().clone()
    word_loss(logits, torch.tensor([[1, 2]]), None, 1.0, 0.0, 0.1).backward()
    assert torch.equal(logits.detach(), before)
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16


def test_a_student_that_is_sure_of_something_else_is_still_pulled() -> None:
    """What the teacher's pieces and all others weigh underflows: the loss is large and finite, and so is its pull."""
    logits = torch.tensor([[[200.0, 0.0, 0.0, 0.0]]], requires_grad=True)
    logs = torch.tensor([[[0.5, 0.25, 0.25]]]).log()
    teacher = {"pieces": torch.tensor([[[1, 2]]]), "logs": logs, "there": torch.tensor([[True]])}
    value = word_loss(logits, torch.tensor([[0]]), teacher, 1.0, 1.0, 0.0)
    value.backward()
    assert 50 < value.item() < 250
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 1] == pytest.approx(-0.5) and logits.grad[0, 0, 2] == pytest.approx(-0.25)
