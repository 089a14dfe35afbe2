"""Which rank each linear map gets: by the energy it keeps, or from a number of parameters that all maps share."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from distill.errors import RecipeError

ROUND = 8
"""Ranks are multiples of it: matrices of odd sizes are slow."""
Step = tuple[float, int]
"""What a step of rank is worth, and how many parameters it costs."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a map, which say what a rank saves."""

    inputs: int
    outputs: int

    @property
    def parameters(self) -> int:
        """Of the whole map, without its bias."""
        return self.inputs * self.outputs

    @property
    def per_rank(self) -> int:
        """Parameters that one more of rank costs."""
        return self.inputs + self.outputs


def shape_of(linear: nn.Module) -> Shape:
    """The shape of a linear map."""
    return Shape(int(cast(Any, linear).in_features), int(cast(Any, linear).out_features))


def rank_for(energies: torch.Tensor, share: float, multiple: int = ROUND) -> int:
    """The least rank that keeps this share of a map's energy, rounded up to a multiple."""
    kept = energies.cumsum(0) / energies.sum().clamp(min=torch.finfo(energies.dtype).tiny)
    rank = int((kept < share - 1e-12).sum()) + 1
    return multiple * -(-rank // multiple)


def by_energy(
    energies: Sequence[torch.Tensor], shapes: Sequence[Shape], share: float, multiple: int = ROUND
) -> list[int | None]:
    """A rank for each map that keeps this share of its energy; None where it would save nothing."""
    ranks = [rank_for(each, share, multiple) for each in energies]
    return [rank if rank * s.per_rank < s.parameters else None for rank, s in zip(ranks, shapes, strict=True)]


def by_parameters(
    energies: Sequence[torch.Tensor], shapes: Sequence[Shape], share: float, multiple: int = ROUND
) -> list[int | None]:
    """A rank for each map, so that all together keep at most this share of their parameters; None: the map stays whole.

    Rank is given out in steps of `multiple`, each to the map where it keeps most for a parameter: worth is the share of
    the map's own energy, so that layers with large outputs are not better off. The last step makes a map whole. Every
    map has one step at least.

    Raises:
        RecipeError: the share is less than one step of each map.
    """
    total = sum(each.parameters for each in shapes)
    steps = [list(_steps(each, shape, multiple)) for each, shape in zip(energies, shapes, strict=True)]
    taken = [1] * len(steps)
    least = sum(own[0][1] for own in steps)
    if least > share * total:
        raise RecipeError(
            f"factorise.parameters: ranks of {multiple} leave {least / total:.3g} of the weights; expected no less, "
            f"found {share:g}"
        )
    room = share * total - least
    queue = [(-own[1][0] / own[1][1], number) for number, own in enumerate(steps) if len(own) > 1]
    heapq.heapify(queue)
    while queue:
        _, number = heapq.heappop(queue)
        own, place = steps[number], taken[number]
        if own[place][1] > room:
            continue
        room -= own[place][1]
        taken[number] += 1
        if place + 1 < len(own):
            heapq.heappush(queue, (-own[place + 1][0] / own[place + 1][1], number))
    return [None if count == len(own) else count * multiple for count, own in zip(taken, steps, strict=True)]


def _steps(energies: torch.Tensor, shape: Shape, multiple: int) -> Iterator[Step]:
    """The steps of a map's rank that save something, and the last one, which makes it whole."""
    shares = energies / energies.sum().clamp(min=torch.finfo(energies.dtype).tiny)
    rank = 0
    while (rank + multiple) * shape.per_rank < shape.parameters:
        yield float(shares[rank : rank + multiple].sum()), multiple * shape.per_rank
        rank += multiple
    yield float(shares[rank:].sum()), shape.parameters - rank * shape.per_rank
