"""The two factors of a linear map that lose least of what matters.

The factors B A of a map W minimise ||D^(1/2) (W - B A) C^(1/2)||_F, where C = E[x x^T] of its inputs x (Wang et al.
2024, "SVD-LLM") and D, a diagonal, is E[g^2] of the loss's gradients g by its outputs (after Hsu et al. 2022, "FWSVD",
who weigh rows by the Fisher information of their parameters). Both expectations are over the positions of texts. Half
of the square is what the loss changes by, if C and D are taken for independent and the Fisher information for the
curvature (as in Martens and Grosse 2015, "K-FAC"); so it can be compared between maps.

With the singular value decomposition D^(1/2) W C^(1/2) = U S V^T and its first r directions U_r, the best that rank r
can do is U_r U_r^T D^(1/2) W C^(1/2) (Eckart and Young 1936), so that B = D^(-1/2) U_r and A = U_r^T D^(1/2) W: C has
not to be inverted, and what is lost is the sum of the other S^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from compress.low_rank.observed import Observed, reads_less
from distill.low_rank import LowRank

RIDGE = 1e-6
"""Share of the mean energy that directions have at least, though they were never seen."""
DAMPING = 0.01
"""Share of the mean squared gradient that is added to each output's."""


@dataclass(frozen=True, eq=False)
class Directions:
    """A map's directions `left` `(out, k)` and what each is worth, `energies` `(k,)`, the most first.

    They are directions of outputs that were multiplied by `scale` `(out,)`.
    """

    left: torch.Tensor
    energies: torch.Tensor
    scale: torch.Tensor


def directions(linear: nn.Linear, seen: Observed | None = None) -> Directions:
    """The directions of a map by what was seen of it; without that, those of its matrix alone."""
    spread, scale, mean = linear.weight.detach().double(), torch.ones(linear.out_features, dtype=torch.float64), 1.0
    if seen is not None:
        spread = spread @ _root(seen.moment) if reads_less(linear) else _root(seen.moment)
        if seen.gradients.any():
            mean = float(seen.gradients.double().mean())
            scale = (seen.gradients.double() / mean + DAMPING).sqrt()
            mean /= seen.positions
    left, values, _ = torch.linalg.svd(scale[:, None] * spread, full_matrices=False)
    return Directions(left, values.square() * mean, scale)


def _root(moment: torch.Tensor) -> torch.Tensor:
    """A matrix R with R R^T = `moment`, and a little more."""
    values, vectors = torch.linalg.eigh(moment.double())
    return cast(torch.Tensor, vectors * (values.clamp(min=0) + RIDGE * values.mean()).sqrt())


def factors(linear: nn.Linear, found: Directions, rank: int) -> LowRank:
    """A map in two factors of this rank."""
    made = LowRank(linear.in_features, linear.out_features, rank, linear.bias is not None).to(linear.weight.dtype)
    left, scale = found.left[:, :rank], found.scale[:, None]
    with torch.no_grad():
        made.first.weight.copy_(left.T @ (scale * linear.weight.detach().double()))
        made.second.weight.copy_(left / scale)
        if linear.bias is not None:
            made.second.bias.copy_(linear.bias)
    return made.train(linear.training)
