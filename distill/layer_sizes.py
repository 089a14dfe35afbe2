"""The sizes of a model's layers in its config, so that a pruned model can be built again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from distill.errors import CheckpointError
from distill.layers import LayerSize, layers, model_config

SIZES_KEY = "potstill_layer_sizes"


def record_sizes(model: nn.Module) -> None:
    """Write each layer's size into the config, so that the model can be built again."""
    setattr(model_config(model), SIZES_KEY, [layer.size.to_json() for layer in layers(model)])


def choose_sizes(config: Any, kept: Sequence[int]) -> None:
    """Of a pruned model's layer sizes, leave those of the layers that are kept."""
    sizes = getattr(config, SIZES_KEY, None)
    if sizes is not None:
        setattr(config, SIZES_KEY, [sizes[layer] for layer in kept])


def apply_sizes(model: nn.Module) -> None:
    """Make a fresh model's layers as small as its config says; a config without sizes changes nothing.

    Raises:
        CheckpointError: the sizes do not fit the model.
    """
    sizes = getattr(model_config(model), SIZES_KEY, None)
    if sizes is None:
        return
    found = layers(model)
    wanted = _read_sizes(sizes, [layer.size for layer in found])
    for layer, size in zip(found, wanted, strict=True):
        layer.keep({kind: range(count) for kind, count in size.items() if count < layer.units[kind].count})


def _read_sizes(value: object, full: Sequence[LayerSize]) -> list[dict[str, int]]:
    """The sizes that a config names, none larger than the full model's.

    Raises:
        CheckpointError: they do not fit.
    """
    if not isinstance(value, list) or len(value) != len(full):
        counted = len(value) if isinstance(value, list) else "no"
        raise CheckpointError(f"the config names {counted} layer sizes for {len(full)} layers")
    problems = [
        f"layer {i}: expected {_most(most)}, found {size!r:.60}"
        for i, (size, most) in enumerate(zip(value, full, strict=True))
        if not _fits(size, most)
    ]
    if problems:
        raise CheckpointError("the config names layer sizes that cannot be", problems)
    return value


def _most(most: LayerSize) -> str:
    """What sizes a layer may have."""
    return " and ".join(f"{kind} from 1 to {count}" for kind, count in most.to_json().items())


def _fits(size: object, most: LayerSize) -> bool:
    """Whether this is one layer's size in a config."""
    limits = most.to_json()
    if not isinstance(size, dict) or set(size) != set(limits):
        return False
    return all(type(size[kind]) is int and 1 <= size[kind] <= limit for kind, limit in limits.items())
