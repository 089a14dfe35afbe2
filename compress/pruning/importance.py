"""What heads and neurons are worth: by the loss they would cost on data, or by the size of their weights.

With a gate m = 1 on each head and neuron, and L the loss of one example:

taylor     mean |dL/dm|: the change of the loss, to first order, if it were switched off (Michel et al. 2019, "Are
           sixteen heads really better than one?", eq. 2; Molchanov et al. 2017 for neurons)
fisher     mean (dL/dm)²: the diagonal of the empirical Fisher information, which at a minimum is the curvature of the
           loss, so that half of it is the second-order change (Kwon et al. 2022, "A fast post-training pruning
           framework for transformers", eq. 5 to 8)
magnitude  the norm of its weights, rows in and columns out, without data: the baseline
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from distill.batches import Batch, RowLoss
from distill.layers import Layer, Units, layers

Scores = Mapping[str, torch.Tensor]
"""One layer's scores by kind of unit, `(units,)` each; larger is more important."""
Measure = Literal["taylor", "fisher", "magnitude"]

_OF_GRADIENT: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {"taylor": torch.abs, "fisher": torch.square}


def importance(model: nn.Module, batches: Iterable[Batch], loss: RowLoss, measure: Measure = "taylor") -> list[Scores]:
    """The scores of each layer, in the order of `distill.layers.layers`."""
    if measure == "magnitude":
        return [{kind: _norms(units) for kind, units in layer.units.items()} for layer in layers(model)]
    return _by_gradient(model, batches, loss, _OF_GRADIENT[measure])


def _by_gradient(
    model: nn.Module, batches: Iterable[Batch], loss: RowLoss, of_gradient: Callable[[torch.Tensor], torch.Tensor]
) -> list[Scores]:
    """The mean over examples of what is made of a gate's gradient."""
    model.eval()
    found = layers(model)
    totals = [{kind: torch.zeros(units.count) for kind, units in layer.units.items()} for layer in found]
    count = 0
    for batch in batches:
        rows = batch["input_ids"].shape[0]
        with _gates(found, rows) as gates:
            gradients = torch.autograd.grad(loss(model, batch).sum(), gates)
        sums = [of_gradient(gradient).sum(0) for gradient in gradients]
        for total in (scores[kind] for scores in totals for kind in scores):
            total.add_(sums.pop(0))
        count += rows
    return [{kind: total / max(count, 1) for kind, total in scores.items()} for scores in totals]


@contextmanager
def _gates(found: Sequence[Layer], rows: int) -> Iterator[list[torch.Tensor]]:
    """A gate of 1 on each unit of each row, `(rows, units)`: kind by kind, layer by layer."""
    gates: list[torch.Tensor] = []
    handles = []
    for units in (units for layer in found for units in layer.units.values()):
        gate = torch.ones(rows, units.count, requires_grad=True)
        gates.append(gate)
        handles.append(units.out.register_forward_pre_hook(_gated(gate, units.width)))
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _gated(gate: torch.Tensor, width: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor]]:
    """A hook that multiplies a linear map's input `(batch, length, units * width)` by its gate."""

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (inputs[0] * gate.repeat_interleave(width, dim=1)[:, None, :],)

    return hook


def _norms(units: Units) -> torch.Tensor:
    """The Euclidean norm of each unit's weights."""
    squares = units.out.weight.detach().square().sum(0)
    for linear in units.into:
        squares = squares + linear.weight.detach().square().sum(1)
    return squares.reshape(-1, units.width).sum(1).sqrt()
