"""What heads and neurons cost: the multiplications that a text takes, or the parameters that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from distill.layers import Layer, Units, layers

Costs = Mapping[str, float]
"""What one unit of each kind costs in one layer."""


def parameters(model: nn.Module) -> list[Costs]:
    """Weights and biases that go with each unit, layer by layer."""
    return [{kind: _parameters(units) for kind, units in layer.units.items()} for layer in layers(model)]


def _parameters(units: Units) -> float:
    """The weights and biases of one head or neuron."""
    rows = sum(linear.in_features + (linear.bias is not None) for linear in units.into)
    return float(units.width * (rows + units.out.out_features))


def multiplications(model: nn.Module, length: int) -> list[Costs]:
    """What each unit takes for a text of `length` tokens, answered as a bundle does: layer by layer.

    A bundle of a classifier computes the last layer for the first token alone: of a head there keys and values are left
    that take time, and of a neuron nothing. A translation is taken to be as long as its source.
    """
    found = layers(model)
    alone = found[-1].cross_heads is None and len(found) > 1
    return [_of_layer(layer, length, alone and layer is found[-1]) for layer in found]


def _of_layer(layer: Layer, length: int, last: bool) -> Costs:
    """One layer's costs; `last`: for the first token alone."""
    share = 1 / length if last else 1.0
    return {kind: length * _per_token(units, kind, length, share) for kind, units in layer.units.items()}


def _per_token(units: Units, kind: str, length: int, share: float) -> float:
    """Multiplications a token; `share` of the tokens ask, and all are looked at."""
    maps: Sequence[int] = [linear.in_features for linear in units.into]
    width, out = units.width, units.out.out_features
    if kind == "neurons":
        return share * (sum(maps) + out)
    query, key, value = (width * size for size in maps)
    return share * (query + width * out + 2 * length * width) + key + value
