"""Removing attention heads and feed-forward neurons for real, by their importance on data.

Importance is first-order: how much the loss would change if a head or neuron were switched off, |dL/dgate| for a gate
at 1 (Michel et al. 2019, "Are sixteen heads really better than one?", eq. 2; Molchanov et al. 2017 for neurons).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from distill.layer_sizes import record_sizes
from distill.layers import Layer, LayerSize, layers

Batch = Mapping[str, torch.Tensor]
RowLoss = Callable[[torch.Tensor, Batch], torch.Tensor]
ROUND = 32


@dataclass(frozen=True)
class Importance:
    """One layer's scores, larger is more important: `heads` is `(heads,)`, `neurons` is `(neurons,)`."""

    heads: torch.Tensor
    neurons: torch.Tensor


def importance(model: nn.Module, batches: Iterable[Batch], loss: RowLoss) -> list[Importance]:
    """Mean |dL/dgate| over examples, for each layer.

    `batches` are model inputs plus what `loss(logits, batch)` needs; it gives a loss a row, `(batch,)`.
    """
    model.eval()
    found = layers(model)
    totals = [Importance(torch.zeros(layer.size.heads), torch.zeros(layer.size.neurons)) for layer in found]
    count = 0
    for batch in batches:
        rows = batch["input_ids"].shape[0]
        with _gates(found, rows) as gates:
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in batch}
            per_row = loss(model(**inputs).logits, batch)
            gradients = torch.autograd.grad(per_row.sum(), gates)
        for i, total in enumerate(totals):
            total.heads.add_(gradients[2 * i].abs().sum(0))
            total.neurons.add_(gradients[2 * i + 1].abs().sum(0))
        count += rows
    return [Importance(total.heads / max(count, 1), total.neurons / max(count, 1)) for total in totals]


@contextmanager
def _gates(found: Sequence[Layer], rows: int) -> Iterator[list[torch.Tensor]]:
    """A gate of 1 on each head and neuron of each row, `(rows, heads)` and `(rows, neurons)` a layer in turn."""
    gates: list[torch.Tensor] = []
    handles = []
    for layer in found:
        for part, width, size in (
            ("attention_output", layer.heads.width, layer.size.heads),
            ("down", 1, layer.size.neurons),
        ):
            gate = torch.ones(rows, size, requires_grad=True)
            gates.append(gate)
            handles.append(layer.linear(part).register_forward_pre_hook(_gated(gate, width)))
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _gated(gate: torch.Tensor, width: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor]]:
    """A hook that multiplies a linear map's input `(batch, length, size * width)` by its gate."""

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (inputs[0] * gate.repeat_interleave(width, dim=1)[:, None, :],)

    return hook


def choose(scores: Sequence[torch.Tensor], removed: float, multiple: int = 1) -> list[list[int]]:
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


def _best(score: torch.Tensor, count: int, multiple: int) -> list[int]:
    """The `count` best units, rounded to a multiple, in order."""
    rounded = max(multiple, multiple * ((count + multiple // 2) // multiple)) if len(score) >= multiple else count
    best = score.sort(descending=True, stable=True).indices[: min(rounded, len(score))]
    return sorted(best.tolist())


def prune(model: nn.Module, scores: Sequence[Importance], heads: float, neurons: float) -> list[LayerSize]:
    """Remove these shares of heads and neurons from `model` in place; its config records the sizes it returns.

    The last of several layers keeps its neurons: a bundle computes them for the first token alone, so that removing
    them would cost accuracy and gain no time. The share of neurons counts those of the other layers.
    """
    found = layers(model)
    kept_heads = choose([score.heads for score in scores], heads)
    paid = len(scores) - 1 or 1
    kept_neurons = choose([score.neurons for score in scores[:paid]], neurons, ROUND)
    kept_neurons += [list(range(layer.size.neurons)) for layer in found[paid:]]
    for layer, own_heads, own_neurons in zip(found, kept_heads, kept_neurons, strict=True):
        layer.keep({"heads": own_heads, "neurons": own_neurons})
    record_sizes(model)
    return [layer.size for layer in found]
