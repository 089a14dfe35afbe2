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


def shares(energies: torch.Tensor) -> torch.Tensor:
    """What each direction has of a map's energy; nothing where there is none."""
    return energies / energies.sum().clamp(min=torch.finfo(energies.dtype).tiny)


def rank_for(energies: torch.Tensor, share: float, multiple: int = ROUND) -> int:
    """The least rank that keeps this share of a map's energy, rounded up to a multiple."""
    rank = int((shares(energies).cumsum(0) < share - 1e-12).sum()) + 1
    return multiple * -(-rank // multiple)


def by_energy(
    energies: Sequence[torch.Tensor], shapes: Sequence[Shape], share: float, multiple: int = ROUND
) -> list[int | None]:
    """A rank for each map that keeps this share of its energy; None where it would save nothing."""
    ranks = [rank_for(each, share, multiple) for each in energies]
    return [rank if rank * s.per_rank < s.parameters else None for rank, s in zip(ranks, shapes, strict=True)]


def by_parameters(
    worths: Sequence[torch.Tensor], shapes: Sequence[Shape], share: float, multiple: int = ROUND
) -> list[int | None]:
    """A rank for each map, so that all together keep at most this share of their parameters; None: the map stays whole.

    `worths` are what each direction of a map is worth, comparable between maps. Rank is given out in steps of
    `multiple`, each where it is worth most for a parameter. Every map has one at least; the last makes it whole.

    Raises:
        RecipeError: the share is less than one step of each map.
    """
    total = sum(each.parameters for each in shapes)
    steps = [list(_steps(each, shape, multiple)) for each, shape in zip(worths, shapes, strict=True)]
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


def _steps(worths: torch.Tensor, shape: Shape, multiple: int) -> Iterator[Step]:
    """The steps of a map's rank that save something, and the last one, which makes it whole."""
    rank = 0
    while (rank + multiple) * shape.per_rank < shape.parameters:
        yield float(worths[rank : rank + multiple].sum()), multiple * shape.per_rank
        rank += multiple
    yield float(worths[rank:].sum()), shape.parameters - rank * shape.per_rank
