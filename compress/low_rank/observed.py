"""What goes through the linear maps of a model on rows of its data: inputs or outputs, and the loss's gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from distill.batches import Batch, RowLoss
from distill.losses import UNLABELLED

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "use_cache")


@dataclass(eq=False)
class Observed:
    """Sums over positions: of x x^T of a map's inputs, or of y y^T of its outputs W x, whichever is smaller.

    `gradients` `(out,)` sums the squared gradients of the loss by each output; zeros where no loss was asked.
    """

    moment: torch.Tensor
    gradients: torch.Tensor
    positions: int = 0

    def add(self, linear: nn.Linear, states: torch.Tensor, output: torch.Tensor) -> None:
        """Add positions `(n, in)` and `(n, out)`."""
        bare = output if linear.bias is None else output - linear.bias
        rows = (states if reads_less(linear) else bare).detach().float()
        self.moment.addmm_(rows.T, rows)
        self.positions += len(rows)

    def add_gradient(self, gradient: torch.Tensor) -> None:
        """Add gradients of positions `(n, out)`."""
        self.gradients.add_(gradient.float().square().sum(0))


def reads_less(linear: nn.Linear) -> bool:
    """Whether a map has no more inputs than outputs."""
    return linear.in_features <= linear.out_features


def observe(
    model: nn.Module, maps: Mapping[str, nn.Linear], batches: Iterable[Batch], loss: RowLoss | None = None
) -> dict[str, Observed]:
    """What goes through each map on `batches`, and how much the `loss` of a row depends on its outputs.

    Padding does not count: sources have an `attention_mask`, and the `labels` of targets say where these end.
    """
    model.eval()
    found = {path: _nothing(each) for path, each in maps.items()}
    for batch in batches:
        handles = [
            maps[path].register_forward_hook(_Hook(each, _there(path, batch), loss is not None))
            for path, each in found.items()
        ]
        try:
            _run(model, batch, loss)
        finally:
            for handle in handles:
                handle.remove()
    model.zero_grad(set_to_none=True)
    return found


def _nothing(linear: nn.Linear) -> Observed:
    """Nothing seen yet."""
    side = min(linear.in_features, linear.out_features)
    return Observed(torch.zeros(side, side), torch.zeros(linear.out_features))


def _run(model: nn.Module, batch: Batch, loss: RowLoss | None) -> None:
    """One batch, forwards or also backwards."""
    if loss is not None:
        loss(model, batch).sum().backward()  # type: ignore[no-untyped-call]
        return
    with torch.no_grad():
        model(**{key: value for key, value in batch.items() if key in INPUTS})


def _there(path: str, batch: Batch) -> torch.Tensor:
    """Which positions `(batch, length)` of what a map reads are no padding."""
    if "decoder" in path.split("."):
        return cast(torch.Tensor, batch["labels"] != UNLABELLED)
    return cast(torch.Tensor, batch["attention_mask"] != 0)


@dataclass(frozen=True)
class _Hook:
    """A forward hook that adds what goes through a map where `there` is true."""

    total: Observed
    there: torch.Tensor
    backwards: bool

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """Add a batch."""
        self.total.add(cast(nn.Linear, module), inputs[0][self.there], output[self.there])
        if self.backwards:
            output.register_hook(lambda gradient: self.total.add_gradient(gradient[self.there]))  # type: ignore[no-untyped-call]
