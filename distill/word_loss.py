"""What a translation student minimises at each word, without going over the table of logits more often than needed."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.nn import functional

from distill.losses import UNLABELLED


def word_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    teacher: dict[str, torch.Tensor] | None,
    temperature: float,
    alpha: float,
    smoothing: float,
) -> torch.Tensor:
    """A mean over words: alpha * T² * KL + (1 - alpha) * cross-entropy where the teacher was asked, else cross-entropy.

    Args:
        logits: the student's, `(batch, words, pieces)`.
        labels: ids to learn `(batch, words)`, -100 where there is none.
        teacher: what `padded_words` made of the teacher's words.
        temperature: T, by which the teacher's were softened; the factor T² is that of `distillation_loss`.
        alpha: weight of the teacher's part.
        smoothing: label smoothing of the cross-entropy.
    """
    flat, wanted = logits.float().flatten(0, 1), labels.flatten()
    learned = (wanted != UNLABELLED).float()
    hard, soft = learned, None
    if teacher is not None:
        asked = alpha * learned * teacher["there"].flatten()
        hard = learned - asked
        soft = (teacher["pieces"].flatten(0, 1), teacher["logs"].flatten(0, 1), temperature**2 * asked, temperature)
    total: torch.Tensor = cast(Any, _Total).apply(flat, wanted.clamp(min=0), hard, smoothing, soft)
    return total / learned.sum().clamp(min=1)


class _Total(torch.autograd.Function):
    """A weighted sum over words of cross-entropy and of KL(teacher || student) over k pieces and "any other".

    Logits `(words, pieces)` are by far the largest table of a step, and autograd makes several of its size for these
    two losses. Here they share one softmax if the temperature is 1, and it becomes the gradient in place.

    With p the student's softmax, s the smoothing and n pieces, the gradient of the cross-entropy is
    p - (1 - s) onehot - s / n. With q the student's softmax at temperature T, q_o what it gives all others, and t and
    t_o the teacher's, that of the divergence is (q - t) / T at the k pieces and (1 - t_o / q_o) q / T at every other.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, hard: torch.Tensor, smoothing: float, soft: Any
    ) -> torch.Tensor:
        """The sum, from logits `(words, pieces)`, labels and their weights `(words,)`, and the teacher's words.

        `soft` is None, or pieces `(words, k)`, log-probabilities `(words, k + 1)`, weights `(words,)` and temperature.
        """
        logs = functional.log_softmax(logits, dim=-1)
        losses = (smoothing - 1) * logs.gather(1, labels[:, None]).squeeze(1)
        if smoothing:
            losses -= smoothing * logs.mean(dim=1)
        total, table = losses @ hard, logs.exp_()
        ctx.smoothing, ctx.temperature = smoothing, None
        kept: tuple[torch.Tensor, ...] = ()
        if soft is not None:
            pieces, teacher_logs, weights, ctx.temperature = soft
            softened = table if ctx.temperature == 1 else functional.softmax(logits / ctx.temperature, dim=-1)
            known = softened.gather(1, pieces)
            softened.scatter_(1, pieces, 0.0)
            others = softened.sum(dim=1, keepdim=True)
            teacher = teacher_logs.exp()
            smallest = torch.finfo(known.dtype).tiny
            found = torch.cat([known, others], dim=1).clamp(min=smallest)
            total = total + (teacher * (teacher_logs - found.log())).sum(dim=1) @ weights
            kept = (softened, pieces, known, teacher, teacher[:, -1:] / found[:, -1:], weights)
        ctx.save_for_backward(table, labels, hard, *kept)
        return total

    @staticmethod
    def backward(ctx: Any, *scales: torch.Tensor) -> Any:
        """The gradient of the logits; the tables of the forward pass become it."""
        table, labels, hard, *kept = ctx.saved_tensors
        hard = scales[0] * hard[:, None]
        even = hard * (ctx.smoothing / table.shape[1])
        if not kept:
            gradient = table.mul_(hard)
        else:
            softened, pieces, known, teacher, ratio, weights = kept
            pull = scales[0] * weights[:, None] / ctx.temperature
            spread, at = pull * (1 - ratio), pull * (known - teacher[:, :-1])
            if ctx.temperature == 1:
                gradient = table.mul_(hard + spread).scatter_(1, pieces, at + hard * known)
            else:
                gradient = softened.mul_(spread).scatter_(1, pieces, at).addcmul_(table, hard)
        if ctx.smoothing:
            gradient -= even
        gradient.scatter_add_(1, labels[:, None], (ctx.smoothing - 1) * hard)
        return gradient, None, None, None, None
