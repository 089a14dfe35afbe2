"""Where an encoder keeps its layers, heads and neurons; and how a layer is made smaller.

One line per architecture: everything that prunes, resizes or exports reads this table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import nn

from distill.errors import CheckpointError

SIZES_KEY = "potstill_layer_sizes"


@dataclass(frozen=True)
class LayerNames:
    """The names of a layer's six linear maps, relative to the layer."""

    query: str
    key: str
    value: str
    attention_output: str
    up: str
    down: str


_BERT = LayerNames(
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_DISTILBERT = LayerNames(
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"
)
ARCHITECTURES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "camembert": _BERT,
    "distilbert": _DISTILBERT,
}


@dataclass(frozen=True)
class LayerSize:
    """What one layer holds: attention heads and feed-forward neurons."""

    heads: int
    neurons: int


@dataclass(frozen=True)
class Layer:
    """One encoder layer's linear maps. Heads are rows of `query`, neurons are rows of `up`."""

    module: nn.Module
    names: LayerNames
    head_size: int

    def linear(self, part: str) -> nn.Linear:
        """The linear map `part`: query, key, value, attention_output, up or down."""
        return cast(nn.Linear, self.module.get_submodule(getattr(self.names, part)))

    @property
    def size(self) -> LayerSize:
        """Heads and neurons that are there now."""
        return LayerSize(self.linear("query").out_features // self.head_size, self.linear("up").out_features)

    def keep(self, heads: Sequence[int], neurons: Sequence[int]) -> None:
        """Keep only these heads and neurons, in this order: the matrices get smaller."""
        rows = torch.cat([torch.arange(h * self.head_size, (h + 1) * self.head_size) for h in heads])
        for part in ("query", "key", "value"):
            _keep_rows(self.linear(part), rows)
        _keep_columns(self.linear("attention_output"), rows)
        chosen = torch.as_tensor(list(neurons))
        _keep_rows(self.linear("up"), chosen)
        _keep_columns(self.linear("down"), chosen)
        _recount_heads(self.linear("query"), self.module, self.names, len(heads), self.head_size)


def _keep_rows(linear: nn.Linear, rows: torch.Tensor) -> None:
    """Keep these outputs of a linear map."""
    linear.weight = nn.Parameter(linear.weight.detach()[rows].clone())
    linear.bias = nn.Parameter(linear.bias.detach()[rows].clone())
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: torch.Tensor) -> None:
    """Keep these inputs of a linear map."""
    linear.weight = nn.Parameter(linear.weight.detach()[:, columns].clone())
    linear.in_features = len(columns)


def _recount_heads(query: nn.Linear, layer: nn.Module, names: LayerNames, heads: int, head_size: int) -> None:
    """Tell the attention module how many heads it has now, under the names that modules use."""
    attention = layer.get_submodule(names.query.rpartition(".")[0])
    sizes = {
        "num_attention_heads": heads,
        "n_heads": heads,
        "all_head_size": heads * head_size,
        "dim": heads * head_size,
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
    """The encoder's layers, described.

    Raises:
        CheckpointError: the architecture has no description yet.
    """
    config = model_config(model)
    names = ARCHITECTURES.get(config.model_type)
    if names is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise CheckpointError(f"cannot resize the layers of a {config.model_type} model; supported: {known}")
    head_size = config.hidden_size // config.num_attention_heads
    return [Layer(module, names, head_size) for module in stack(model)[1]]


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


def record_sizes(model: nn.Module) -> None:
    """Write each layer's size into the config, so that the model can be built again."""
    sizes = [asdict(layer.size) for layer in layers(model)]
    setattr(model_config(model), SIZES_KEY, sizes)


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
        layer.keep(range(size.heads), range(size.neurons))


def _read_sizes(value: object, full: Sequence[LayerSize]) -> list[LayerSize]:
    """The sizes that a config names, none larger than the full model's.

    Raises:
        CheckpointError: they do not fit.
    """
    if not isinstance(value, list) or len(value) != len(full):
        counted = len(value) if isinstance(value, list) else "no"
        raise CheckpointError(f"the config names {counted} layer sizes for {len(full)} layers")
    problems = [
        f"layer {i}: expected heads from 1 to {most.heads} and neurons from 1 to {most.neurons}, found {size!r:.60}"
        for i, (size, most) in enumerate(zip(value, full, strict=True))
        if not _fits(size, most)
    ]
    if problems:
        raise CheckpointError("the config names layer sizes that cannot be", problems)
    return [LayerSize(size["heads"], size["neurons"]) for size in value]


def _fits(size: object, most: LayerSize) -> bool:
    """Whether this is one layer's size in a config."""
    if not isinstance(size, dict):
        return False
    pairs = ((size.get("heads"), most.heads), (size.get("neurons"), most.neurons))
    return all(type(count) is int and 1 <= count <= limit for count, limit in pairs)
