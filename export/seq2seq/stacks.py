"""The encoder and one step of the decoder, written in whatever operators they are given."""

from __future__ import annotations

import onnx

from export.graphs.layers import Layer, feed, projected, residual, source_attention
from export.graphs.operators import Standard, key_positions
from export.graphs.plan import Weights, width_in

NEAR, COMMON = "shortlist.near", "shortlist.common"
"""Pieces `(vocabulary, n)` that each piece of a source may become, and those `(m,)` that any source may need."""


def encode(parts: Standard, padding: str) -> None:
    """The source's keys and values for each layer of the decoder; `padding` is what attention wants of the mask."""
    plan, write, bias = parts.plan, parts.write, _source_bias(parts)
    states = parts.embed("input_ids", plan.encoder_table)
    if "encoder.positions" in write.weights:
        length = write.node("Shape", "input_ids", start=1)
        used = write.node("Slice", write.weight("encoder.positions"), write.whole(0), length, write.whole(0))
        states = write.node("Add", states, used)
    states = _maybe_norm(parts, states, "encoder.embedding_norm")
    for layer in range(len(plan.encoder_heads)):
        stem = f"encoder.{layer}"
        states = residual(parts, states, f"{stem}.attention_norm", source_attention(parts, layer, padding, bias))
        states = residual(parts, states, f"{stem}.feed_norm", feed(parts, stem))
    _remember(parts, _maybe_norm(parts, states, "encoder.norm"))
    if has_shortlist(write.weights):
        _shorten(parts)


def step(parts: Standard, padding: str, sentences: str = "") -> None:
    """Logits of the last of the newest tokens, and keys and values of all so far.

    `sentences` says how many these are the beams of, a vector of one number; without it each row is its own sentence.
    """
    plan, write, bias = parts.plan, parts.write, _target_bias(parts)
    folds = _folds(parts, sentences) if sentences else {}
    states = parts.embed("input_ids", plan.decoder_table)
    if "decoder.positions" in write.weights:
        states = write.node("Add", states, write.node("Gather", write.weight("decoder.positions"), "positions"))
    states = _maybe_norm(parts, states, "decoder.embedding_norm")
    for layer in range(len(plan.decoder_heads)):
        stem = f"decoder.{layer}"
        states = residual(parts, states, f"{stem}.attention_norm", _target_attention(parts, layer, bias))
        across = _cross_attention(parts, layer, padding, folds)
        states = residual(parts, states, f"{stem}.cross_norm", across)
        states = residual(parts, states, f"{stem}.feed_norm", feed(parts, stem))
    last = write.node("Gather", states, write.scalar(-1), axis=1)
    output = [f"source_{part}" for part in parts.output_parts] if has_shortlist(write.weights) else parts.output()
    write.name_output(parts.logits(_maybe_norm(parts, last, "decoder.norm"), output), f"{write.branch}.logits")


def layer_names(stem: str, layers: int) -> list[str]:
    """Names of keys and values of each layer: `stem_keys.0, stem_values.0, stem_keys.1 …`."""
    return [f"{stem}{part}.{layer}" for layer in range(layers) for part in ("keys", "values")]


def has_shortlist(weights: Weights) -> bool:
    """Whether a model weighs some words at each step instead of all (`compress/shortlist.py`)."""
    return NEAR in weights


def _shorten(parts: Standard) -> None:
    """The words that may translate this source, in order and each once, and their part of the output matrix."""
    write = parts.write
    near = write.node("Gather", write.weight(NEAR), "input_ids")
    found = write.node("Reshape", write.node("Cast", near, to=onnx.TensorProto.INT64), write.whole(-1))
    words = write.node("Unique", write.node("Concat", found, write.weight(COMMON), axis=0), sorted=1)
    for value, name in zip([words, *parts.output(words)], ["words", *parts.output_parts], strict=True):
        write.name_output(value, f"{write.branch}.{name}")


def _maybe_norm(parts: Standard, states: str, name: str) -> str:
    """A norm that not every architecture has."""
    return parts.norm(states, name) if f"{name}.weight" in parts.write.weights else states


def _target_attention(parts: Standard, layer: int, bias: str) -> Layer:
    """Attention of the target to itself; its keys and values become outputs."""
    stem, heads = f"decoder.{layer}", parts.plan.decoder_heads[layer]

    def attend(states: str) -> str:
        past = (f"past_keys.{layer}", f"past_values.{layer}")
        found, keys, values = parts.self_attention(projected(parts, states, stem), heads, past, bias)
        for value, what in ((keys, "keys"), (values, "values")):
            parts.write.name_output(value, f"{parts.write.branch}.{what}.{layer}")
        return parts.product(found, f"{stem}.attention.out")

    return attend


def _cross_width(parts: Standard, layer: int) -> int:
    """Heads times size of a layer's cross-attention."""
    return width_in(parts.write.weights, f"decoder.{layer}.cross.out")


def _folds(parts: Standard, sentences: str) -> dict[int, tuple[str, str]]:
    """For each width of cross-attention, the shape that makes all beams of a sentence one target, and the one back.

    Beams of a sentence ask the same keys: as one longer target they need no copies of them.
    """
    write = parts.write
    widths = sorted({_cross_width(parts, layer) for layer in range(len(parts.plan.cross_heads))})
    batch = write.node("Shape", "input_ids")
    return {
        width: (
            write.node("Concat", sentences, write.whole(-1, width), axis=0),
            write.node("Concat", batch, write.whole(width), axis=0),
        )
        for width in widths
    }


def _cross_attention(parts: Standard, layer: int, padding: str, folds: dict[int, tuple[str, str]]) -> Layer:
    """Attention of the target to the source."""
    stem, heads, write = f"decoder.{layer}.cross", parts.plan.cross_heads[layer], parts.write
    folded, unfolded = folds.get(_cross_width(parts, layer), ("", ""))

    def attend(states: str) -> str:
        queries = parts.product(states, f"{stem}.query")
        if folded:
            queries = write.node("Reshape", queries, folded)
        source = (f"source_keys.{layer}", f"source_values.{layer}")
        found = parts.cross_attention(queries, heads, source, padding)
        return parts.product(write.node("Reshape", found, unfolded) if unfolded else found, f"{stem}.out")

    return attend


def _remember(parts: Standard, states: str) -> None:
    """Keys and values of the source for each layer of the decoder, from one product; they become outputs."""
    write, plan = parts.write, parts.plan
    widths = [_cross_width(parts, layer) for layer in range(len(plan.cross_heads))]
    sizes = write.whole(*(width for width in widths for _ in ("keys", "values")))
    merged = parts.product(states, "decoder.memory")
    split = write.nodes_of("Split", merged, sizes, outputs=2 * len(widths), axis=-1)
    for index, part in enumerate(split):
        layer, what = index // 2, ("keys", "values")[index % 2]
        write.name_output(parts.split(part, plan.cross_heads[layer]), f"{write.branch}.{what}.{layer}")
    write.name_output(write.node("Identity", write.empty_logits()), f"{write.branch}.logits")


def _source_bias(parts: Standard) -> str:
    """The relative positions of the source; empty where positions are not relative."""
    if not parts.plan.reach:
        return ""
    write = parts.write
    length = write.node("Squeeze", write.node("Shape", "input_ids", start=1))
    places = write.node("Range", write.scalar(0), length, write.scalar(1))
    return parts.relative(places, places, "encoder.distances", -parts.plan.reach)


def _target_bias(parts: Standard) -> str:
    """What keeps the target from its future, with its relative positions where there are any."""
    if not parts.plan.reach:
        return parts.past_only("positions")
    return parts.relative("positions", key_positions(parts.write, "positions"), "decoder.distances", -1)
