"""Removing heads, neurons and channels of the residual stream for real: every matrix gets smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from compress.pruning.choose import Block, Kept, choose, choose_within
from compress.pruning.cost import Costs
from compress.pruning.importance import Scores
from distill.channels import keep_channels
from distill.layer_sizes import record_sizes
from distill.layers import Layer, LayerSize, layers

ROUND = 32
"""Neurons and channels stay in multiples of this: matrices of odd sizes are slow."""
HEADS = ("heads", "cross_heads")


def prune(model: nn.Module, scores: Sequence[Scores], heads: float, neurons: float) -> list[LayerSize]:
    """Remove these shares of heads and neurons from `model` in place; its config records the sizes it returns.

    The last of several layers of a classifier keeps its neurons: a bundle computes them for the first token alone, so
    that removing them would cost accuracy and gain no time. The share of neurons counts those of the other layers.
    Heads for which something else is made stay, too.
    """
    found = layers(model)
    return _keep(model, found, chosen(found, scores, heads, neurons))


def chosen(found: Sequence[Layer], scores: Sequence[Scores], heads: float, neurons: float) -> list[dict[str, Kept]]:
    """What stays of each layer when these shares go, by kind; a kind that is not named stays whole."""
    wanted = {"heads": (heads, 1), "cross_heads": (heads, 1), "neurons": (neurons, ROUND)}
    alone = found[-1].cross_heads is None and len(found) > 1
    spared = (len(found) - 1, "neurons") if alone else None
    kept: list[dict[str, Kept]] = [{} for _ in found]
    for kinds in (HEADS, ("neurons",)):
        share, multiple = wanted[kinds[0]]
        if not share:
            continue
        places = [place for place in free(found) if place[1] in kinds and place != spared]
        stay = choose([scores[number][kind] for number, kind in places], share, multiple)
        for (number, kind), units in zip(places, stay, strict=True):
            kept[number][kind] = units
    return kept


def prune_width(model: nn.Module, scores: torch.Tensor, removed: float) -> int:
    """Remove this share of the residual stream's channels in place, and return how many are left.

    `scores` `(channels,)` say what each is worth. The config records which ones stay.
    """
    (kept,) = choose([scores], removed, ROUND)
    if len(kept) < len(scores):
        keep_channels(model, kept)
    return len(kept)


def prune_within(model: nn.Module, scores: Sequence[Scores], costs: Sequence[Costs], budget: float) -> list[LayerSize]:
    """Remove units in place until those that stay cost at most `budget`, the least worth for its cost first.

    Where the budget is too small, the least that can be stays: a head and 32 neurons in each layer.
    """
    found = layers(model)
    blocks = {
        (number, kind): Block(scores[number][kind], costs[number][kind], ROUND if kind == "neurons" else 1)
        for number, kind in free(found)
    }
    kept: list[dict[str, Kept]] = [{} for _ in found]
    for (number, kind), units in choose_within(blocks, budget).items():
        kept[number][kind] = units
    return _keep(model, found, kept)


def whole_cost(model: nn.Module, costs: Sequence[Costs]) -> float:
    """What all units cost together that could go."""
    found = layers(model)
    return sum(costs[number][kind] * found[number].units[kind].count for number, kind in free(found))


def free(found: Sequence[Layer]) -> list[tuple[int, str]]:
    """The number of a layer and the kind of its units, wherever these may go."""
    return [
        (number, kind) for number, layer in enumerate(found) for kind, units in layer.units.items() if not units.held_by
    ]


def _keep(model: nn.Module, found: Sequence[Layer], kept: Sequence[Mapping[str, Kept]]) -> list[LayerSize]:
    """Keep what was chosen, and record the sizes."""
    for layer, units in zip(found, kept, strict=True):
        layer.keep(units)
    record_sizes(model)
    return [layer.size for layer in found]
