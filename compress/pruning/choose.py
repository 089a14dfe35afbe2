"""Which heads and neurons stay: a share of all, or what fits into a budget, the best worth for its cost first."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)
Kept = list[int]
"""The units that stay, in order."""


def choose(scores: Sequence[torch.Tensor], removed: float, multiple: int = 1) -> list[Kept]:
    """Which units each layer keeps when a share of all is removed, in their old order.

    Scores are compared across layers after division by their layer's norm, so that no layer is emptied only because
    its gradients are small. Each layer keeps at least one unit, and a multiple of `multiple` where it has as many:
    matrices of odd sizes are slow.
    """
    normed = [score / score.norm().clamp(min=1e-12) for score in scores]
    together = torch.cat([_best_first(score) for score in normed])
    layer = torch.cat([torch.full_like(score, i, dtype=torch.long) for i, score in enumerate(normed)])
    kept = max(len(scores), round(len(together) * (1 - removed)))
    chosen = together.sort(descending=True, stable=True).indices[:kept]
    counts = layer[chosen].bincount(minlength=len(scores)).tolist()
    return [_best(score, count, multiple) for score, count in zip(normed, counts, strict=True)]


def _best_first(score: torch.Tensor) -> torch.Tensor:
    """The scores with the best one lifted above all others, so that it is kept."""
    lifted = score.clone()
    lifted[score.argmax()] = torch.inf
    return lifted


def _best(score: torch.Tensor, count: int, multiple: int) -> Kept:
    """The `count` best units, rounded to a multiple, in order."""
    rounded = max(multiple, multiple * ((count + multiple // 2) // multiple)) if len(score) >= multiple else count
    best = score.sort(descending=True, stable=True).indices[: min(rounded, len(score))]
    return sorted(best.tolist())


@dataclass(frozen=True)
class Block:
    """The units of one kind in one layer: what each is worth `(units,)`, what each costs, how many go at once."""

    worth: torch.Tensor
    cost: float
    multiple: int = 1


@dataclass(frozen=True)
class _Slice:
    """Units of a block that go together, and how many are left then."""

    left: int
    worth: float
    saved: float


def choose_within(blocks: Mapping[Name, Block], budget: float) -> dict[Name, Kept]:
    """Which units each block keeps so that together they cost at most `budget`.

    Units go in the order of worth per cost, the least first: the greedy solution of a knapsack, whose worths are
    comparable across blocks (those of `importance`, by Taylor or Fisher, are). Something of each block stays: its
    best `multiple` units, even where that is more than the budget.
    """
    spent = sum(block.cost * len(block.worth) for block in blocks.values())
    left = {name: len(block.worth) for name, block in blocks.items()}
    slices = [(name, one) for name, block in blocks.items() for one in _slices(block)]
    for name, one in sorted(slices, key=lambda each: each[1].worth / each[1].saved):
        if spent <= budget:
            break
        left[name] = one.left
        spent -= one.saved
    return {name: _best(block.worth, left[name], 1) for name, block in blocks.items()}


def _slices(block: Block) -> list[_Slice]:
    """A block's units in the order in which they go; worth per cost never falls, so that sorting keeps this order."""
    ordered = block.worth.sort(descending=True, stable=True).values.double()
    found, worst = [], 0.0
    for start in reversed(range(block.multiple, len(ordered), block.multiple)):
        part = ordered[start : start + block.multiple]
        worst = max(worst, float(part.sum()) / len(part))
        found.append(_Slice(start, worst * len(part), block.cost * len(part)))
    return found if block.cost > 0 else []
