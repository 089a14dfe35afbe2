"""What heads, neurons and channels are worth: by the loss they would cost on data, or by the size of their weights.

With a gate m = 1 on each head and neuron, and L the loss of one example:

taylor     mean |dL/dm|: the change of the loss, to first order, if it were switched off (Michel et al. 2019, "Are
           sixteen heads really better than one?", eq. 2; Molchanov et al. 2017 for neurons)
fisher     mean (dL/dm)²: the diagonal of the empirical Fisher information, which at a minimum is the curvature of the
           loss, so that half of it is the second-order change (Kwon et al. 2022, "A fast post-training pruning
           framework for transformers", eq. 5 to 8)
magnitude  the norm of its weights, rows in and columns out, without data: the baseline

A channel of the residual stream has one gate for the whole model (as in Xia et al. 2022, "Structured pruning learns
compact and accurate models", section 3.1), in front of every map that reads the stream: queries, keys and values, the
feed-forward's first maps, the head or output matrix. So its worth is that of its being read; that norms are over fewer
channels without it does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from distill.batches import Batch, RowLoss
from distill.layers import Units, layers
from distill.stream import Stream, stream

Scores = Mapping[str, torch.Tensor]
"""One layer's scores by kind of unit, `(units,)` each; larger is more important."""
Measure = Literal["taylor", "fisher", "magnitude"]

_OF_GRADIENT: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {"taylor": torch.abs, "fisher": torch.square}


def importance(model: nn.Module, batches: Iterable[Batch], loss: RowLoss, measure: Measure = "taylor") -> list[Scores]:
    """The scores of each layer, in the order of `distill.layers.layers`."""
    found = layers(model)
    if measure == "magnitude":
        return [{kind: _norms(units) for kind, units in layer.units.items()} for layer in found]
    gated = [_Gated((units.out,), units.count, units.width) for layer in found for units in layer.units.values()]
    scores = iter(_by_gradient(model, batches, loss, measure, gated))
    return [{kind: next(scores) for kind in layer.units} for layer in found]


def channel_importance(
    model: nn.Module, batches: Iterable[Batch], loss: RowLoss, measure: Measure = "taylor"
) -> torch.Tensor:
    """The scores of the residual stream's channels, `(channels,)`."""
    found = stream(model)
    if measure == "magnitude":
        return _channel_norms(found)
    return _by_gradient(model, batches, loss, measure, [_Gated(found.readers, found.width)])[0]


@dataclass(frozen=True)
class _Gated:
    """`count` units with a gate each, in front of these maps; `width` of a map's inputs are one unit's."""

    maps: tuple[nn.Linear, ...]
    count: int
    width: int = 1


def _by_gradient(
    model: nn.Module, batches: Iterable[Batch], loss: RowLoss, measure: Measure, gated: Sequence[_Gated]
) -> list[torch.Tensor]:
    """The mean over examples of what is made of each gate's gradient, `(units,)` each."""
    model.eval()
    totals = [torch.zeros(each.count) for each in gated]
    count = 0
    for batch in batches:
        rows = batch["input_ids"].shape[0]
        with _gates(gated, rows) as gates:
            gradients = torch.autograd.grad(loss(model, batch).sum(), gates)
        for total, gradient in zip(totals, gradients, strict=True):
            total.add_(_OF_GRADIENT[measure](gradient).sum(0))
        count += rows
    return [total / max(count, 1) for total in totals]


@contextmanager
def _gates(gated: Sequence[_Gated], rows: int) -> Iterator[list[torch.Tensor]]:
    """A gate of 1 on each unit of each row, `(rows, units)`."""
    gates = [torch.ones(rows, each.count, requires_grad=True) for each in gated]
    handles = [
        linear.register_forward_pre_hook(_gating(gate, each.width))
        for gate, each in zip(gates, gated, strict=True)
        for linear in each.maps
    ]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _gating(gate: torch.Tensor, width: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor]]:
    """A hook that multiplies a map's input `(batch, length, units * width)`, or of one position, by its gate."""

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        wide = gate.repeat_interleave(width, dim=1)
        return (inputs[0] * (wide if inputs[0].dim() == 2 else wide[:, None, :]),)

    return hook


def _norms(units: Units) -> torch.Tensor:
    """The Euclidean norm of each unit's weights."""
    squares = units.out.weight.detach().square().sum(0)
    for linear in units.into:
        squares = squares + linear.weight.detach().square().sum(1)
    return squares.reshape(-1, units.width).sum(1).sqrt()


def _channel_norms(found: Stream) -> torch.Tensor:
    """The Euclidean norm of each channel's weights in tables and maps, `(channels,)`; shared ones count once."""
    weights = {
        weight: axis
        for module, axis in found.parts
        for weight in module.parameters(recurse=False)
        if weight.dim() == 2 and weight.requires_grad
    }
    return torch.stack([weight.detach().square().sum(1 - axis) for weight, axis in weights.items()]).sum(0).sqrt()
