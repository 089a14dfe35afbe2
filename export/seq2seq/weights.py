"""The plan and weights of a torch encoder-decoder, under the names that its graph gives them.

Products are stored as `(in, out)`, merged where one input feeds several (queries, keys and values; both halves of a
gated feed-forward; the cross-attention of all layers), and scales are folded into them where that changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distill.encoder_decoders import Architecture, Side, architecture, part
from distill.low_rank import LowRank, matrix
from export.graphs.plan import LOWEST, Plan

Array = NDArray[np.float32]
Named = Iterator[tuple[str, Array]]


def read_model(model: nn.Module, positions: int) -> tuple[Plan, dict[str, Array]]:
    """Plan and weights of a model; of tables of positions at most `positions` rows are kept.

    Raises:
        CheckpointError: its architecture is not known.
    """
    config = cast(Any, model).config
    names = architecture(config)
    weights = dict(_all_weights(model, names, positions))
    if names.relative and getattr(config, "scale_decoder_outputs", False):
        weights["decoder.norm.weight"] = weights["decoder.norm.weight"] * np.float32(config.d_model**-0.5)
    tables, embeddings = _tables(model, names)
    return _plan(model, names, tables), {**weights, **embeddings}


def _all_weights(model: nn.Module, names: Architecture, positions: int) -> Named:
    """Everything but the embedding tables."""
    for which, side in zip(("encoder", "decoder"), names.sides, strict=True):
        stack = part(model, getattr(names, which))
        for index, layer in enumerate(part(stack, names.layers)):
            yield from _layer(layer, names, side, f"{which}.{index}")
        yield from _optional_norm(stack, "layernorm_embedding", f"{which}.embedding_norm")
        yield from _optional_norm(stack, names.last_norm, f"{which}.norm")
        yield from _positions(stack, positions, which)
        if names.relative:
            yield f"{which}.distances", _distances(part(stack, f"{names.layers}.0.{side.attention}"))
    yield from _memory(part(model, names.decoder), names)
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None and bias.any():
        yield "output.bias", _array(bias[0])


def _layer(layer: nn.Module, names: Architecture, side: Side, stem: str) -> Named:
    """One layer of either stack; what cross-attention keeps of the source is left to `_memory`."""
    own = [part(layer, f"{side.attention}.{name}") for name in names.projections]
    scale = _scale(part(layer, side.attention), own[0], names)
    yield from _product(f"{stem}.attention.qkv", own[:3], (scale, 1.0, 1.0))
    yield from _product(f"{stem}.attention.out", own[3:])
    yield from _norm(f"{stem}.attention_norm", part(layer, side.attention_norm))
    if side.cross:
        query, out = (part(layer, f"{side.cross}.{names.projections[i]}") for i in (0, 3))
        yield from _product(f"{stem}.cross.query", [query], (_scale(part(layer, side.cross), query, names),))
        yield from _product(f"{stem}.cross.out", [out])
        yield from _norm(f"{stem}.cross_norm", part(layer, side.cross_norm))
    feed = part(layer, side.feed)
    yield from _product(f"{stem}.up", [part(feed, name) for name in names.up])
    yield from _product(f"{stem}.down", [part(feed, names.down)])
    yield from _norm(f"{stem}.feed_norm", part(layer, side.feed_norm))


def _memory(decoder: nn.Module, names: Architecture) -> Named:
    """The cross-attention keys and values of all layers as one product of the encoder's output."""
    stem = names.sides[1].cross
    layers = part(decoder, names.layers)
    yield from _product(
        "decoder.memory", [part(layer, f"{stem}.{name}") for layer in layers for name in names.projections[1:3]]
    )


def _scale(attention: Any, query: nn.Linear, names: Architecture) -> float:
    """What scores are multiplied with: one over the root of a head's size, but nothing in T5."""
    return 1.0 if names.relative else float((query.out_features // getattr(attention, names.heads)) ** -0.5)


def _product(name: str, parts: list[nn.Linear], scales: tuple[float, ...] = ()) -> Named:
    """One product `(in, out)` of one or several linear maps side by side.

    A map of its own that has two factors is two products; side by side with others it is multiplied out.
    """
    if len(parts) == 1 and isinstance(parts[0], LowRank):
        yield f"{name}.first.weight", _array(parts[0].first.weight).T
        yield from _product(f"{name}.second", [parts[0].second], scales)
        return
    factors = scales or (1.0,) * len(parts)
    yield (
        f"{name}.weight",
        np.concatenate([_array(matrix(p)).T * np.float32(f) for p, f in zip(parts, factors, strict=True)], axis=1),
    )
    if any(p.bias is not None for p in parts):
        biases = [np.zeros(p.out_features, np.float32) if p.bias is None else _array(p.bias) for p in parts]
        yield f"{name}.bias", np.concatenate([b * np.float32(f) for b, f in zip(biases, factors, strict=True)])


def _norm(name: str, norm: Any) -> Named:
    """The weight of a norm, and its bias if it has one."""
    yield f"{name}.weight", _array(norm.weight)
    if getattr(norm, "bias", None) is not None:
        yield f"{name}.bias", _array(norm.bias)


def _optional_norm(stack: nn.Module, path: str, name: str) -> Named:
    """A norm that not every architecture has."""
    norm = getattr(stack, path, None)
    if norm is not None:
        yield from _norm(name, norm)


def _positions(stack: nn.Module, longest: int, which: str) -> Named:
    """The table of positions from the first token's on; Bart's and M2M's have rows before it that are never read."""
    module = getattr(stack, "embed_positions", None)
    if module is None:
        return
    sinusoidal = getattr(module, "weights", None)  # M2M100; others have a `weight`
    skipped = getattr(module, "offset", 0) if sinusoidal is None else module.padding_idx + 1
    yield f"{which}.positions", _array(module.weight if sinusoidal is None else sinusoidal)[skipped:][:longest]


def _distances(attention: Any) -> Array:
    """T5's relative position bias by distance `(distances, heads)`.

    The encoder's begins at minus the greatest distance that is told apart; the decoder's at -1, the future, unseen.
    """
    reach = attention.relative_attention_max_distance
    behind = torch.arange(0 if attention.is_decoder else -reach, reach + 1)
    buckets = attention._relative_position_bucket(
        -behind, not attention.is_decoder, attention.relative_attention_num_buckets, reach
    )
    table = _array(attention.relative_attention_bias.weight)[buckets.numpy()]
    future = np.full((1, table.shape[1]), LOWEST, np.float32)
    return np.concatenate([future, table]) if attention.is_decoder else table


def _tables(model: nn.Module, names: Architecture) -> tuple[list[str], dict[str, Array]]:
    """The names of the encoder's, decoder's and output's matrix, and the matrices: equal ones have one name."""
    matrices = [part(model, getattr(names, which)).embed_tokens.weight for which in ("encoder", "decoder")]
    matrices.append(cast(Any, model).lm_head.weight)
    found: dict[str, Array] = {}
    chosen = []
    for name, table in zip(
        ("embedding.table", "decoder.embedding.table", "output.embedding.table"), matrices, strict=True
    ):
        array = _array(table)
        same = next((other for other, known in found.items() if np.array_equal(known, array)), None)
        chosen.append(same or name)
        found.setdefault(chosen[-1], array)
    return chosen, found


def _plan(model: nn.Module, names: Architecture, tables: list[str]) -> Plan:
    """What weights do not tell."""
    config = cast(Any, model).config
    first = part(model, f"{names.encoder}.{names.layers}.0")
    norm, attention = part(first, names.sides[0].feed_norm), part(first, names.sides[0].attention)
    return Plan(
        encoder_heads=_heads(model, names, 0, names.sides[0].attention),
        decoder_heads=_heads(model, names, 1, names.sides[1].attention),
        cross_heads=_heads(model, names, 1, names.sides[1].cross),
        norm_first=names.norm_first,
        root_norm=getattr(norm, "bias", None) is None,
        epsilon=float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon),
        activation=str(getattr(config, names.activation)),
        gated=len(names.up) > 1,
        embedding_scale=float(config.d_model**0.5 if getattr(config, "scale_embedding", False) else 1.0),
        reach=attention.relative_attention_max_distance if names.relative else 0,
        encoder_table=tables[0],
        decoder_table=tables[1],
        output_table=tables[2],
    )


def _heads(model: nn.Module, names: Architecture, which: int, attention: str) -> tuple[int, ...]:
    """The number of heads in each layer."""
    layers = part(model, f"{(names.encoder, names.decoder)[which]}.{names.layers}")
    return tuple(int(getattr(part(layer, attention), names.heads)) for layer in layers)


def _array(value: torch.Tensor) -> Array:
    """The numbers of a parameter."""
    return cast(Array, value.detach().float().numpy())
