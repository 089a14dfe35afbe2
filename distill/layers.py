"""Where models keep their layers, heads and neurons; and how a layer is made smaller.

What the modules are called stands in `encoders` and `encoder_decoders`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import nn

from distill import encoder_decoders, encoders
from distill.encoder_decoders import Architecture, part
from distill.encoders import LayerNames
from distill.errors import CheckpointError

KINDS = ("heads", "neurons", "cross_heads")
"""What a layer is made of; only a decoder's has `cross_heads`, those that look at the source."""


@dataclass(frozen=True)
class LayerSize:
    """What one layer holds: attention heads, feed-forward neurons, and in a decoder heads that look at the source."""

    heads: int
    neurons: int
    cross_heads: int = 0

    def to_json(self) -> dict[str, int]:
        """The counts of what there is."""
        return {kind: count for kind, count in asdict(self).items() if count}


@dataclass(frozen=True)
class Units:
    """Heads or neurons: `width` rows of each of the maps `into`, and as many columns of the map `out`, are one.

    `module` is what counts heads itself; `held_by` says what else is made for just so many of them.
    """

    into: tuple[nn.Linear, ...]
    out: nn.Linear
    width: int = 1
    module: nn.Module | None = None
    held_by: str = ""

    @property
    def count(self) -> int:
        """How many are there now."""
        return self.out.in_features // self.width

    def keep(self, chosen: Sequence[int]) -> None:
        """Keep only these, in this order: the matrices get smaller.

        Raises:
            CheckpointError: a map is in two factors.
        """
        if not all(isinstance(each, nn.Linear) for each in (*self.into, self.out)):
            raise CheckpointError("layers whose maps are in two factors cannot be made smaller: prune, then factorise")
        rows = torch.cat([torch.arange(one * self.width, (one + 1) * self.width) for one in chosen])
        for linear in self.into:
            _keep_rows(linear, rows)
        _keep_columns(self.out, rows)
        if self.module is not None:
            _recount(self.module, len(chosen), self.width)


@dataclass(frozen=True)
class Layer:
    """One layer of an encoder or decoder, and what it is made of."""

    module: nn.Module
    heads: Units
    neurons: Units
    cross_heads: Units | None = None

    @property
    def units(self) -> Mapping[str, Units]:
        """Everything that can be counted, by its kind."""
        found = {"heads": self.heads, "neurons": self.neurons}
        return found if self.cross_heads is None else {**found, "cross_heads": self.cross_heads}

    @property
    def size(self) -> LayerSize:
        """How many of each are there now."""
        return LayerSize(**{kind: units.count for kind, units in self.units.items()})

    def linear(self, name: str) -> nn.Linear:
        """An encoder's linear map: query, key, value, attention_output, up or down."""
        (query, key, value), (up, *_) = self.heads.into, self.neurons.into
        found = {"query": query, "key": key, "value": value, "up": up}
        return {**found, "attention_output": self.heads.out, "down": self.neurons.out}[name]

    def keep(self, kept: Mapping[str, Sequence[int]]) -> None:
        """Keep only these of each kind, in this order; kinds that are not named stay whole."""
        for kind, chosen in kept.items():
            self.units[kind].keep(chosen)


def _keep_rows(linear: nn.Linear, rows: torch.Tensor) -> None:
    """Keep these outputs of a linear map."""
    linear.weight = nn.Parameter(linear.weight.detach()[rows].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[rows].clone())
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: torch.Tensor) -> None:
    """Keep these inputs of a linear map."""
    linear.weight = nn.Parameter(linear.weight.detach()[:, columns].clone())
    linear.in_features = len(columns)


def _recount(attention: nn.Module, heads: int, width: int) -> None:
    """Tell an attention module how many heads it has now, under the names that modules use."""
    sizes = {
        "num_attention_heads": heads,
        "num_heads": heads,
        "n_heads": heads,
        "all_head_size": heads * width,
        "dim": heads * width,
        "inner_dim": heads * width,
    }
    for name, value in sizes.items():
        if hasattr(attention, name):
            setattr(attention, name, value)


def stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The encoder's layers and the name they have in the model.

    Raises:
        CheckpointError: no list of modules is as long as the config's number of layers.
    """
    wanted = model_config(model).num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return name, module
    raise CheckpointError(f"found no stack of {wanted} layers in {type(model).__name__}")


def layers(model: nn.Module) -> list[Layer]:
    """The model's layers, described: an encoder's, or an encoder's and a decoder's.

    Raises:
        CheckpointError: the architecture has no description yet.
    """
    config = model_config(model)
    if config.model_type in encoder_decoders.ARCHITECTURES:
        return list(_of_both(model, encoder_decoders.architecture(config)))
    names = encoders.ARCHITECTURES.get(config.model_type)
    if names is None:
        known = ", ".join(sorted({**encoders.ARCHITECTURES, **encoder_decoders.ARCHITECTURES}))
        raise CheckpointError(f"cannot resize the layers of a {config.model_type} model; supported: {known}")
    head_size = config.hidden_size // config.num_attention_heads
    return [_of_encoder(module, names.layer, head_size) for module in stack(model)[1]]


def _of_encoder(module: nn.Module, names: LayerNames, head_size: int) -> Layer:
    """One layer of an encoder."""
    query, key, value, out, up, down = (
        cast(nn.Linear, part(module, path))
        for path in (names.query, names.key, names.value, names.attention_output, names.up, names.down)
    )
    attention = part(module, names.query.rpartition(".")[0])
    return Layer(module, Units((query, key, value), out, head_size, attention), Units((up,), down))


def _of_both(model: nn.Module, names: Architecture) -> Iterator[Layer]:
    """The layers of an encoder-decoder: the encoder's first."""
    for path, side in zip((names.encoder, names.decoder), names.sides, strict=True):
        for module in part(model, f"{path}.{names.layers}"):
            feed = part(module, side.feed)
            neurons = Units(tuple(part(feed, name) for name in names.up), part(feed, names.down))
            cross = _heads(part(module, side.cross), names, relative=False) if side.cross else None
            yield Layer(module, _heads(part(module, side.attention), names, names.relative), neurons, cross)


def _heads(attention: Any, names: Architecture, relative: bool) -> Units:
    """The heads of an attention module of an encoder-decoder."""
    *into, out = (part(attention, name) for name in names.projections)
    width = getattr(attention, "head_dim", None) or attention.key_value_proj_dim
    held_by = "all layers share one table of relative positions, a column a head" if relative else ""
    return Units(tuple(into), out, width, attention, held_by)


def model_config(model: nn.Module) -> Any:
    """The model's transformers config."""
    return cast(Any, model).config


@contextlib.contextmanager
def attention(model: nn.Module, name: str) -> Iterator[None]:
    """Switch the model's attention for a while: "eager", "sdpa"."""
    before = model_config(model)._attn_implementation
    cast(Any, model).set_attn_implementation(name)
    try:
        yield
    finally:
        cast(Any, model).set_attn_implementation(before)
