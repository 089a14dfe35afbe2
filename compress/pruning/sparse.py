"""Weights of layers set to zero one by one, and kept there while the rest recovers: a share of them, or two of four.

A weight's score is its size |w|, or, with calibration inputs, |w| * ||x||, the norm being that of the input it is
multiplied with, over all tokens (Wanda, Sun et al. 2023, eq. 1). Matrices keep their sizes: what has no kernels for
zeros, as onnxruntime has none on processors, is as slow as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from distill.batches import Batch
from distill.errors import CheckpointError, RecipeError
from distill.layers import layers

Masks = Mapping[str, torch.Tensor]
"""By the name of a weight `(out, in)`: False where it is zero."""
Sparsity = float | Literal["2:4"]
OF, KEPT = 4, 2
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def masks(model: nn.Module, batches: Iterable[Batch], sparsity: Sparsity) -> dict[str, torch.Tensor]:
    """Which weights of the linear maps inside of the layers stay; without `batches` their size alone decides.

    The weights of one output compete, as Wanda's do. With "2:4" two of four neighbours along the input stay, and what
    is left over at the end of a row.

    Raises:
        RecipeError: `sparsity` is no share.
        CheckpointError: the architecture has no description.
    """
    if sparsity != "2:4" and not (isinstance(sparsity, float) and 0 <= sparsity < 1):
        raise RecipeError(f'sparsity: expected "2:4" or a share from 0 to below 1, found {sparsity!r}')
    norms = input_norms(model, batches)
    scores = {
        f"{name}.weight": linear.weight.detach().abs() * norms.get(name, linear.weight.new_ones(linear.in_features))
        for name, linear in linears(model).items()
    }
    if sparsity == "2:4":
        return {name: two_of_four(score) for name, score in scores.items()}
    return {name: largest(score, sparsity) for name, score in scores.items()}


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear maps inside of the layers, by name; embeddings and heads lie outside."""
    inside = {id(module) for layer in layers(model) for module in layer.module.modules()}
    return {
        name: module for name, module in model.named_modules() if id(module) in inside and isinstance(module, nn.Linear)
    }


def two_of_four(scores: torch.Tensor) -> torch.Tensor:
    """The two larger of each four neighbours of a row of scores `(out, in)`; of equal ones the first."""
    outputs, inputs = scores.shape
    whole = inputs - inputs % OF
    groups = scores[:, :whole].reshape(outputs, -1, OF)
    kept = torch.ones_like(scores, dtype=torch.bool)
    kept[:, :whole] = largest(groups, 1 - KEPT / OF).reshape(outputs, whole)
    return kept


def largest(scores: torch.Tensor, share: float) -> torch.Tensor:
    """All but a `share` of each row of scores `(…, in)`, the smallest; of equal ones the first stay."""
    kept = scores.shape[-1] - round(share * scores.shape[-1])
    best = scores.sort(dim=-1, descending=True, stable=True).indices[..., :kept]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)


def input_norms(model: nn.Module, batches: Iterable[Batch]) -> dict[str, torch.Tensor]:
    """The norm `(in,)` of each input of each linear map inside of the layers, over all tokens that are no padding.

    Without batches there is none.
    """
    found = linears(model)
    squares: dict[str, torch.Tensor] = {}
    present = [torch.zeros(0)]
    handles = [linear.register_forward_pre_hook(_adding(squares, name, present)) for name, linear in found.items()]
    model.eval()
    try:
        for batch in batches:
            present[0] = batch["attention_mask"]
            with torch.inference_mode():
                model(**{key: batch[key] for key in INPUTS if key in batch})
    finally:
        for handle in handles:
            handle.remove()
    return {name: total.sqrt() for name, total in squares.items()}


def _adding(
    squares: dict[str, torch.Tensor], name: str, present: Sequence[torch.Tensor]
) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    """A hook that adds up the squares of a linear map's inputs `(batch, length, in)`."""

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        states = inputs[0] * present[0][:, :, None].to(inputs[0].dtype)
        total = states.square().sum((0, 1))
        squares[name] = total.clone() if name not in squares else squares[name] + total

    return hook


@contextmanager
def masked(model: nn.Module, chosen: Masks) -> Iterator[None]:
    """Set the weights that are not `chosen` to zero, and keep them there whatever an optimiser does meanwhile.

    Their gradients are zero, and they are set to zero again after each step: momentum, and optimisers that mix the
    numbers of a matrix, would move them all the same. So a checkpoint that is saved meanwhile has the zeros, too.

    Raises:
        CheckpointError: the masks are of another model.
    """
    pairs = _pairs(model, chosen)

    def apply(*_: Any) -> None:
        with torch.no_grad():
            for weight, mask in pairs:
                weight.mul_(mask.to(weight.device))

    apply()
    hooks = [cast(Any, weight).register_hook(_masking(mask)) for weight, mask in pairs]
    try:
        with _after_each_step(apply):
            yield
    finally:
        for handle in hooks:
            handle.remove()
        apply()


@contextmanager
def _after_each_step(apply: Callable[..., None]) -> Iterator[None]:
    """Do something after each step of any optimiser: a training makes its own, and does not hand it out."""
    handle = register_optimizer_step_post_hook(apply)
    try:
        yield
    finally:
        handle.remove()


def _masking(mask: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A hook that takes the gradient from what is masked."""
    return lambda gradient: gradient * mask.to(gradient.device)


def _pairs(model: nn.Module, chosen: Masks) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """Weights and their masks."""
    weights = dict(model.named_parameters())
    strange = [
        f"{name}: {tuple(mask.shape)}" for name, mask in chosen.items()
        if name not in weights or weights[name].shape != mask.shape
    ]  # fmt: skip
    if strange:
        raise CheckpointError("these masks are of another model: make them of the one they are for", strange)
    return [(weights[name], mask) for name, mask in chosen.items()]


def zeros(chosen: Masks) -> float:
    """The share of weights that masks set to zero."""
    total = sum(mask.numel() for mask in chosen.values())
    return 1 - sum(int(mask.sum()) for mask in chosen.values()) / max(1, total)
