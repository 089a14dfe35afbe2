"""The graph of a classifier: ids in, logits out; the last layer works for the first position alone.

Classifiers of the BERT family look at one position of the last layer. Queries, attention output, feed-forward and norms
of all others are never read there; only keys and values are.

inputs   input_ids, attention_mask, perhaps token_type_ids (rows, length)
outputs  logits (rows, labels)
"""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.graphs.layers import feed, residual, source_attention
from export.graphs.operators import Operators, Standard
from export.graphs.plan import Plan, Weights
from export.graphs.writer import Writer, branch, model_of, tensors, value

TABLE, POSITIONS, TYPES = "embedding.table", "embedding.positions", "embedding.types"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def build_classifier(plan: Plan, weights: Weights, opset: int, operators: Operators = Standard) -> onnx.ModelProto:
    """The graph of a classifier; `operators` say in which operators its parts are written."""
    stored: dict[str, NDArray[Any]] = {}
    parts = operators(plan, Writer(weights, stored, "classify"))
    if parts.tells_padding:
        _two_ways(parts.write, [operators(plan, Writer(weights, stored, name)) for name in ("padded", "even")])
    else:
        parts.write.name_output(_classify(parts, parts.padding("attention_mask")), "logits")
    names = INPUTS if TYPES in weights else INPUTS[:2]
    inputs = [value(name, TensorProto.INT64, ["rows", "length"]) for name in names]
    labels = int(weights["head.out.weight"].shape[1])
    outputs = [value("logits", TensorProto.FLOAT, ["rows", labels])]
    graph = helper.make_graph(parts.write.nodes, "classification", inputs, outputs, tensors(stored))
    return model_of(graph, plan, opset, parts.domains)


def _two_ways(write: Writer, ways: list[Standard]) -> None:
    """Where no row has padding, attention needs no mask, which takes a third of its time: a way of its own."""
    padded, even = ways
    answers = [_classify(padded, padded.padding("attention_mask")), _classify(even, "")]
    graphs = [branch(way.write, [value(answer, TensorProto.FLOAT)]) for way, answer in zip(ways, answers, strict=True)]
    least = write.node("ReduceMin", "attention_mask", keepdims=0)
    found = write.node(
        "If", write.node("Cast", least, to=TensorProto.BOOL), then_branch=graphs[1], else_branch=graphs[0]
    )
    write.name_output(found, "logits")


def _classify(parts: Standard, padding: str) -> str:
    """All of it; without `padding` all positions are of the texts."""
    plan = parts.plan
    states, last = _embedded(parts), len(plan.encoder_heads) - 1
    for number in range(last):
        stem = f"encoder.{number}"
        states = residual(parts, states, f"{stem}.attention_norm", source_attention(parts, number, padding, ""))
        states = residual(parts, states, f"{stem}.feed_norm", feed(parts, stem))
    first = _last_layer(parts, states, last, padding)
    dense = parts.product(first, "head.dense")
    return parts.product(parts.activation(dense, plan.head_activation), "head.out")


def _embedded(parts: Standard) -> str:
    """Tokens, positions and segments, added up and normed."""
    plan, write = parts.plan, parts.write
    states = write.node("Add", parts.embed("input_ids", plan.encoder_table), _positions(parts))
    if TYPES in write.weights:
        states = write.node("Add", states, write.node("Gather", write.weight(TYPES), "token_type_ids"))
    states = parts.norm(states, "embedding.norm")
    wider = "embedding.projection"
    return parts.product(states, wider) if f"{wider}.weight" in write.weights else states


def _positions(parts: Standard) -> str:
    """Rows of the table of positions, `(length, width)` or `(rows, length, width)`."""
    write, padding = parts.write, parts.plan.padding_id
    if padding is None:
        length = write.node("Shape", "input_ids", start=1)
        return write.node("Slice", write.weight(POSITIONS), write.whole(0), length, write.whole(0))
    token = write.node("Not", write.node("Equal", "input_ids", write.scalar(padding)))
    counted = write.node("Cast", token, to=TensorProto.INT64)
    places = write.node("Mul", write.node("CumSum", counted, write.scalar(1)), counted)
    return write.node("Gather", write.weight(POSITIONS), places)


def _last_layer(parts: Standard, states: str, number: int, padding: str) -> str:
    """The first position after the last layer, `(rows, width)`."""
    write, stem, heads = parts.write, f"encoder.{number}", parts.plan.encoder_heads[number]
    first = write.node("Slice", states, write.whole(0), write.whole(1), write.whole(1))
    query = parts.product(first, f"{stem}.attention.query")
    key, val = write.nodes_of("Split", parts.product(states, f"{stem}.attention.kv"), outputs=2, axis=-1, num_outputs=2)
    found = parts.product(parts.encoder_attention([query, key, val], heads, padding, ""), f"{stem}.attention.out")
    first = parts.add_and_norm(first, found, f"{stem}.attention_norm")
    first = residual(parts, first, f"{stem}.feed_norm", feed(parts, stem))
    return write.node("Squeeze", first, write.whole(1))
