"""Linear maps in two factors, W = B A: fewer parameters and products where the rank is low enough."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn

from distill.channels import apply_channels
from distill.errors import CheckpointError
from distill.layer_sizes import apply_sizes
from distill.layers import model_config

RANKS_KEY = "potstill_ranks"


class LowRank(nn.Module):
    """A linear map `second(first(x))`; `first` is `(rank, in)` and has no bias, `second` is `(out, rank)`."""

    weight: None = None
    """There is none in one piece. T5 looks here for a type that its activations would have to take."""

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool = True) -> None:
        """A map with random weights."""
        super().__init__()
        self.in_features, self.out_features, self.rank = inputs, outputs, rank
        self.first = nn.Linear(inputs, rank, bias=False)
        self.second = nn.Linear(rank, outputs, bias=bias)

    @property
    def bias(self) -> torch.Tensor | None:
        """The map's bias `(out,)`, if it has one."""
        return cast("torch.Tensor | None", self.second.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States `(…, in)` to `(…, out)`."""
        return cast(torch.Tensor, self.second(self.first(states)))

    def matrix(self) -> torch.Tensor:
        """The product of both factors, `(out, in)`."""
        return self.second.weight @ self.first.weight


def matrix(linear: nn.Module) -> torch.Tensor:
    """The matrix `(out, in)` of a linear map, whole or in two factors."""
    return linear.matrix() if isinstance(linear, LowRank) else cast(nn.Linear, linear).weight


def replace_map(model: nn.Module, path: str, made: nn.Module) -> None:
    """Put another map in the place of the one at `path`."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, made)


def low_rank_maps(model: nn.Module) -> dict[str, LowRank]:
    """The maps that are in two factors, by their path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LowRank)}


def record_ranks(model: nn.Module) -> None:
    """Write the ranks into the config, so that the model can be built again."""
    setattr(model_config(model), RANKS_KEY, {path: found.rank for path, found in low_rank_maps(model).items()})


def resize(model: nn.Module) -> None:
    """Make a fresh model's layers as small as its config says: heads and neurons, channels, then ranks.

    Raises:
        CheckpointError: sizes, channels or ranks do not fit the model.
    """
    apply_sizes(model)
    apply_channels(model)
    apply_ranks(model)


def apply_ranks(model: nn.Module) -> None:
    """Put maps of two factors where a fresh model's config names ranks; a config without ranks changes nothing.

    Raises:
        CheckpointError: naming every rank that does not fit.
    """
    ranks = getattr(model_config(model), RANKS_KEY, None)
    if ranks is None:
        return
    if not isinstance(ranks, dict):
        raise CheckpointError(f"{RANKS_KEY}: expected a rank for each map by its name, found {ranks!r:.60}")
    modules = dict(model.named_modules())
    problems = [problem for path, rank in ranks.items() if (problem := _problem(modules.get(path), path, rank))]
    if problems:
        raise CheckpointError("the config names ranks that cannot be", problems)
    for path, rank in ranks.items():
        found = cast(nn.Linear, modules[path])
        replace_map(model, path, LowRank(found.in_features, found.out_features, rank, found.bias is not None))


def _problem(found: nn.Module | None, path: object, rank: object) -> str:
    """Why a map cannot have this rank; empty when it can."""
    if not isinstance(found, nn.Linear) or not any(part.isdigit() for part in str(path).split(".")):
        return f"{path}: the model's layers have no such linear map"
    most = min(found.in_features, found.out_features)
    if type(rank) is not int or not 1 <= rank <= most:
        return f"{path}: expected a rank from 1 to {most}, found {rank!r:.60}"
    return ""


def whole(model: nn.Module) -> nn.Module:
    """The model with its factors multiplied out: a copy, or the model itself where nothing is in factors."""
    if not low_rank_maps(model):
        return model
    made = copy.deepcopy(model)
    for path, found in low_rank_maps(made).items():
        linear = nn.Linear(found.in_features, found.out_features, found.bias is not None)
        linear.weight, linear.bias = nn.Parameter(found.matrix().detach()), cast(Any, found.second).bias
        replace_map(made, path, linear)
    delattr(model_config(made), RANKS_KEY)
    return made
