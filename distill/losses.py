"""What a student minimises."""

from __future__ import annotations

import torch
from torch.nn import functional

UNLABELLED = -100


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float, alpha: float
) -> torch.Tensor:
    """Distillation: alpha * T² * KL(teacher_T || student_T) + (1 - alpha) * cross-entropy.

    The first part is a mean over all rows, the second over the rows that have a label.

    Args:
        student: logits, `(batch, labels)`.
        teacher: logits in the same order of labels, `(batch, labels)`.
        labels: gold label ids `(batch,)`; -100 for rows without one.
        temperature: T, which softens both distributions. The factor T² keeps the gradient's size (Hinton et al.
            2015, section 2): without it the soft part vanishes as T grows.
        alpha: weight of the teacher's part, 0 to 1.
    """
    soft = soft_rows(student, teacher, temperature).mean()
    return alpha * soft + (1 - alpha) * hard_loss(student, labels)


def distillation_rows(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float, alpha: float
) -> torch.Tensor:
    """The same loss a row, `(batch,)`; a row without a label has the teacher's part alone."""
    soft = soft_rows(student, teacher, temperature)
    hard = functional.cross_entropy(student.float(), labels, ignore_index=UNLABELLED, reduction="none")
    return alpha * soft + (1 - alpha) * hard


def soft_rows(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² * KL(teacher_T || student_T) a row: `(batch,)` from `(batch, labels)` logits."""
    soft_student = functional.log_softmax(student.float() / temperature, dim=-1)
    soft_teacher = functional.log_softmax(teacher.float() / temperature, dim=-1)
    divergence = functional.kl_div(soft_student, soft_teacher, reduction="none", log_target=True)
    return divergence.sum(-1) * temperature**2


def hard_loss(student: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy, a mean over the rows that have a label, perhaps with smoothed labels; 0 when none has one."""
    total = functional.cross_entropy(
        student.float(), labels, ignore_index=UNLABELLED, reduction="sum", label_smoothing=smoothing
    )
    return total / (labels != UNLABELLED).sum().clamp(min=1)
