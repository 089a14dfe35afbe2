"""Greedy translation inside of the graph: one run for a sentence instead of one for each of its tokens.

A turn of the loop is the same step that the graph offers by itself, and the choice of the next token. Rows that have
ended go on until all have: what they write after their end is for the caller to cut off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.graphs.operators import Operators, Standard
from export.graphs.writer import Writer, value
from export.seq2seq.stacks import has_shortlist, layer_names, step

BRANCH = "turn"


@dataclass(frozen=True)
class Beginning:
    """What every loop begins with: the prefix of each row `(rows, prefix)`, and keys and values of no tokens."""

    ids: str
    pasts: list[str]


def begin(parts: Standard) -> Beginning:
    """Make what every loop begins with."""
    write = parts.write
    rows = write.node("Shape", "input_ids", end=1)
    ids = write.node("Expand", "prefix", write.node("Concat", rows, write.whole(1), axis=0))
    return Beginning(ids, _nothing(parts, rows))


def write_greedily(parts: Standard, operators: Operators, start: Beginning) -> list[onnx.ValueInfoProto]:
    """Append the loop to the graph that has encoded a source; returns what it puts out.

    It stands outside of any branch, for onnxruntime rearranges the weights of products, which makes them four times as
    fast, in the graph and one level below. A step passes it by with no turns, and without a past to copy.
    """
    write, (body, pasts) = parts.write, step_of(parts, operators, BRANCH)
    ended = write.node("Expand", write.store("not_ended", np.array([False])), write.node("Shape", "input_ids", end=1))
    carried = [start.ids, "positions", ended, *start.pasts]
    *_, tokens, highest = write.nodes_of(
        "Loop", "turns", "", *carried, outputs=len(carried) + 2, body=_turn(body, pasts)
    )
    write.name_output(tokens, "tokens")
    write.name_output(highest, "highest")
    return [
        value("tokens", TensorProto.INT64, ["written", "written_rows"]),
        value("highest", TensorProto.FLOAT, ["written", "written_rows"]),
    ]


def step_of(parts: Standard, operators: Operators, branch: str) -> tuple[Standard, list[str]]:
    """The step that the body of a loop begins with, and the names of its keys and values so far."""
    write, layers = parts.write, len(parts.plan.decoder_heads)
    pasts = layer_names("past_", layers)
    left = {name: f"{branch}.{name}" for name in ("input_ids", "positions", *pasts)}
    source = {f"source_{name}": name for name in [*layer_names("", layers), *parts.output_parts]}
    body = operators(parts.plan, Writer(write.weights, write.stored, branch, left | source))
    step(body)
    return body, pasts


def _nothing(parts: Standard, rows: str) -> list[str]:
    """Keys and values of no tokens for each layer of the decoder."""
    write, made, found = parts.write, dict[str, str](), list[str]()
    for layer, heads in enumerate(parts.plan.decoder_heads):
        width = write.weights[f"decoder.{layer}.attention.out.weight"].shape[0]
        sizes = write.whole(heads, 0, width // heads)
        if sizes not in made:
            shape = write.node("Concat", rows, sizes, axis=0)
            made[sizes] = write.node(
                "ConstantOfShape", shape, value=helper.make_tensor("zero", parts.real_type, [1], [0])
            )
        found += [made[sizes]] * 2
    return found


def _turn(parts: Standard, pasts: list[str]) -> onnx.GraphProto:
    """A step and its choice, as the body of the loop."""
    write = parts.write
    shortened = has_shortlist(write.weights)
    barred = write.node("Gather", "barred", "words") if shortened else "barred"
    allowed = write.node("Add", f"{BRANCH}.logits", barred)
    highest, chosen = write.nodes_of("TopK", allowed, write.whole(1), outputs=2, axis=1)
    if shortened:
        chosen = write.node("Gather", "words", chosen)
    token = write.node("Squeeze", chosen, write.whole(1))
    ended = write.node("Or", f"{BRANCH}.ended", write.node("Equal", token, "end"))
    left = write.node("Cast", write.node("Not", ended), to=TensorProto.INT32)
    going = write.node("Cast", write.node("ReduceMax", left, keepdims=0), to=TensorProto.BOOL)
    last = write.node("Gather", "positions", write.whole(-1))
    after = write.node("Add", last, write.scalar(1))
    caches = [name.replace("past_", f"{BRANCH}.") for name in pasts]
    inputs = [
        value("number", TensorProto.INT64, []),
        value("go", TensorProto.BOOL, []),
        value(f"{BRANCH}.input_ids", TensorProto.INT64),
        value(f"{BRANCH}.positions", TensorProto.INT64),
        value(f"{BRANCH}.ended", TensorProto.BOOL),
        *(value(f"{BRANCH}.{name}", parts.real_type) for name in pasts),
    ]
    outputs = [
        value(going, TensorProto.BOOL),
        value(chosen, TensorProto.INT64),
        value(after, TensorProto.INT64),
        value(ended, TensorProto.BOOL),
        *(value(name, parts.real_type) for name in caches),
        value(token, TensorProto.INT64, ["rows"]),
        value(write.node("Squeeze", highest, write.whole(1)), TensorProto.FLOAT, ["rows"]),
    ]
    return helper.make_graph(write.nodes, BRANCH, inputs, outputs)
