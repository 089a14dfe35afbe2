"""Training with int8's rounding in place, so that the weights learn to live with it (Jacob et al. 2018, section 3).

Each product sees its weight and its input as the int8 graph will: weights in 7 bits with a scale for each output,
inputs in 8 bits between their own smallest and largest value, sentence by sentence, as a bundle meets them one at a
time. Gradients pass as if nothing had been rounded (the straight-through estimator, Bengio et al. 2013).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional

LARGEST_WEIGHT = 64
"""Weights are -64 to 64: sums of larger ones overflow on processors without VNNI."""
LARGEST_INPUT = 255


@contextmanager
def rounded(model: nn.Module) -> Iterator[None]:
    """While entered, every linear map of `model` rounds its weight and its input; what is stored stays as it is."""
    maps = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for linear in maps:
        linear.forward = partial(_product, linear)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear in maps:
            del linear.forward


def _product(linear: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    """The linear map of rounded states with its rounded weight."""
    return functional.linear(round_input(states), round_weight(linear.weight), linear.bias)


def round_weight(weight: torch.Tensor) -> torch.Tensor:
    """A weight `(out, in)` with at most 129 values a row, evenly spaced around 0; its gradient is that of `weight`."""
    return _rounded(weight, weight.detach().abs().amax(dim=1, keepdim=True), LARGEST_WEIGHT)


def round_input(states: torch.Tensor) -> torch.Tensor:
    """States `(batch, …, width)` with at most 256 values a sentence, 0 among them; the gradient is that of `states`.

    int8 also shifts them by a whole number of steps, which changes no value.
    """
    low, high = states.detach().flatten(1).aminmax(dim=1)
    extent = high.clamp(min=0) - low.clamp(max=0)
    return _rounded(states, extent.reshape(-1, *[1] * (states.dim() - 1)), LARGEST_INPUT)


def _rounded(values: torch.Tensor, extent: torch.Tensor, steps: int) -> torch.Tensor:
    """`values` at whole multiples of `extent / steps`."""
    with torch.no_grad():
        scale = extent.clamp(min=torch.finfo(values.dtype).tiny * steps) / steps
        off = (values / scale).round_().mul_(scale).sub_(values)
    return values + off
