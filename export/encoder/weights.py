"""The plan and weights of a torch classifier, under the names that its graph gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distill.encoders import ARCHITECTURES, Architecture, LayerNames
from distill.layers import Layer, layers, model_config
from distill.low_rank import LowRank, matrix
from export.encoder.build import POSITIONS, TABLE, TYPES
from export.graphs.operators import KNOWN_ACTIVATIONS
from export.graphs.plan import Plan

Array = NDArray[np.float32]


def what_is_missing(model: nn.Module) -> str:
    """What keeps a classifier's graph from being built from its weights alone; empty if nothing does."""
    config = model_config(model)
    names = ARCHITECTURES.get(config.model_type)
    if names is None:
        return f"architecture {config.model_type} has no description"
    activation = str(getattr(config, names.activation))
    return "" if activation in KNOWN_ACTIVATIONS else f"activation {activation} has no description"


def read_classifier(model: nn.Module) -> tuple[Plan, dict[str, Array]]:
    """Plan and weights of a classifier."""
    config, found = model_config(model), layers(model)
    names = ARCHITECTURES[config.model_type]
    weights = _embeddings(model, names)
    for number, layer in enumerate(found):
        weights |= _layer(layer, names.layer, f"encoder.{number}", last=number == len(found) - 1)
    weights |= _product("head.dense", [model.get_submodule(names.dense)])
    weights |= _product("head.out", [model.get_submodule(names.out)])
    plan = Plan(
        encoder_heads=tuple(layer.size.heads for layer in found),
        decoder_heads=(),
        cross_heads=(),
        norm_first=False,
        root_norm=False,
        epsilon=float(getattr(config, "layer_norm_eps", 1e-12)),
        activation=str(getattr(config, names.activation)),
        gated=False,
        embedding_scale=1.0,
        reach=0,
        encoder_table=TABLE,
        decoder_table="",
        output_table="",
        head_activation=names.dense_activation,
        padding_id=_padding_id(model),
    )
    return plan, weights


def _padding_id(model: nn.Module) -> int | None:
    """The id whose position is the table's first that is used; None where positions count from the first row."""
    config = model_config(model)
    return int(config.pad_token_id or 0) if ARCHITECTURES[config.model_type].padded else None


def _embeddings(model: nn.Module, names: Architecture) -> dict[str, Array]:
    """The tables, and the norm of their sum. A table of segments of which there is one is part of the positions."""
    module = model.get_submodule(names.embeddings)
    first = _padding_id(model) or 0
    found = {
        TABLE: _table(module, "word_embeddings"),
        POSITIONS: _table(module, "position_embeddings")[first:],
        **_norm("embedding.norm", module.get_submodule("LayerNorm")),
    }
    if hasattr(module, "token_type_embeddings"):
        types = _table(module, "token_type_embeddings")
        if len(types) > 1:
            found[TYPES] = types
        else:
            found[POSITIONS] = found[POSITIONS] + types
    if names.projection and hasattr(model.get_submodule(names.projection.rpartition(".")[0]), "embeddings_project"):
        found |= _product("embedding.projection", [model.get_submodule(names.projection)])
    return found


def _layer(layer: Layer, names: LayerNames, stem: str, last: bool) -> dict[str, Array]:
    """One layer. The last one's queries stand apart, for only its first position is asked for."""
    query, key, value = (layer.linear(part) for part in ("query", "key", "value"))
    scale = layer.heads.width**-0.5
    found = (
        _product(f"{stem}.attention.query", [query], (scale,)) | _product(f"{stem}.attention.kv", [key, value])
        if last
        else _product(f"{stem}.attention.qkv", [query, key, value], (scale, 1.0, 1.0))
    )
    for part, name in (("attention_output", "attention.out"), ("up", "up"), ("down", "down")):
        found |= _product(f"{stem}.{name}", [layer.linear(part)])
    found |= _norm(f"{stem}.attention_norm", layer.module.get_submodule(names.attention_norm))
    return found | _norm(f"{stem}.feed_norm", layer.module.get_submodule(names.feed_norm))


def _product(name: str, parts: list[Any], scales: tuple[float, ...] = ()) -> dict[str, Array]:
    """One product `(in, out)` of one or several linear maps side by side, each times its scale.

    A map of its own that has two factors is two products; side by side with others it is multiplied out.
    """
    if len(parts) == 1 and isinstance(parts[0], LowRank):
        first = {f"{name}.first.weight": _array(parts[0].first.weight).T}
        return first | _product(f"{name}.second", [parts[0].second], scales)
    factors = [np.float32(factor) for factor in scales or (1.0,) * len(parts)]
    pairs = list(zip(parts, factors, strict=True))
    return {
        f"{name}.weight": np.concatenate([_array(matrix(part)).T * factor for part, factor in pairs], axis=1),
        f"{name}.bias": np.concatenate([_array(part.bias) * factor for part, factor in pairs]),
    }


def _norm(name: str, norm: Any) -> dict[str, Array]:
    """A layer norm."""
    return {f"{name}.weight": _array(norm.weight), f"{name}.bias": _array(norm.bias)}


def _table(module: nn.Module, name: str) -> Array:
    """An embedding table."""
    return _array(module.get_parameter(f"{name}.weight"))


def _array(value: torch.Tensor) -> Array:
    """The numbers of a parameter."""
    return np.asarray(value.detach().float().numpy())
