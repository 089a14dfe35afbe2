"""How much has to go for a model to be so many times as fast, tried and timed in onnxruntime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from torch import nn

from compress.pruning.cost import Costs
from compress.pruning.importance import Scores
from compress.pruning.prune import prune_within, whole_cost
from distill import processes
from distill.errors import RecipeError
from distill.layers import LayerSize

TRIES = 7
"""Halvings of the budget: the last is within a hundredth of what heads and neurons cost."""

Speedup = Callable[[nn.Module], float]
"""How many times as fast a model surely is as the one before pruning."""


def prune_to_speed(
    model: nn.Module, scores: Sequence[Scores], costs: Sequence[Costs], wanted: float, speedup: Speedup
) -> list[LayerSize]:
    """Remove from `model`, in place, as little as makes it `wanted` times as fast.

    Of several processes the first one tries: each would find other times, and other sizes.

    Raises:
        RecipeError: it never is, not with a head and 32 neurons in each layer.
    """
    whole = whole_cost(model, costs)
    share = processes.from_first(
        lambda: _largest_share(lambda part: speedup(_tried(model, scores, costs, part * whole)), wanted)
    )
    return prune_within(model, scores, costs, share * whole)


def _tried(model: nn.Module, scores: Sequence[Scores], costs: Sequence[Costs], budget: float) -> nn.Module:
    """A smaller copy."""
    smaller = copy.deepcopy(model)
    prune_within(smaller, scores, costs, budget)
    return smaller


def _largest_share(speedup: Callable[[float], float], wanted: float) -> float:
    """The largest share of the costs with which a model is fast enough.

    Raises:
        RecipeError: there is none.
    """
    most = speedup(0.0)
    if most < wanted:
        raise RecipeError(
            f"prune: with a head and 32 neurons a layer the model is {most:.2f} times as fast, {wanted:g} were asked "
            "for; remove layers or width, too (prune.layers, prune.width), or ask for less"
        )
    if speedup(1.0) >= wanted:
        return 1.0
    enough, too_much = 0.0, 1.0
    for _ in range(TRIES):
        middle = (enough + too_much) / 2
        enough, too_much = (middle, too_much) if speedup(middle) >= wanted else (enough, middle)
    return enough
