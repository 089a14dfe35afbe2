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
from export.graphs.plan import width_in
from export.graphs.writer import Writer, value
from export.seq2seq.stacks import has_shortlist, layer_names, step

BRANCH = "turn"


@dataclass(frozen=True)
class Beginning:
    """What every loop begins with, and what stays the same in all turns.

    That is the shape of one value a row, the prefix of each row `(rows, prefix)`, keys and values of no tokens, the
    place after the prefix `(1,)`, and what attention wants of the source's mask.
    """

    column: str
    ids: str
    pasts: list[str]
    after: str
    padding: str


def begin(parts: Standard, padding: str) -> Beginning:
    """Make what every loop begins with."""
    write = parts.write
    rows = write.node("Shape", "input_ids", end=1)
    column = write.node("Concat", rows, write.whole(1), axis=0)
    ids = write.node("Expand", "prefix", column)
    return Beginning(column, ids, _nothing(parts, rows), write.node("Shape", "prefix"), padding)


def write_greedily(parts: Standard, operators: Operators, start: Beginning) -> list[onnx.ValueInfoProto]:
    """Append the loop to the graph that has encoded a source; returns what it puts out.

    It stands outside of any branch, for onnxruntime rearranges the weights of products, which makes them four times as
    fast, in the graph and one level below. A step passes it by with no turns, and without a past to copy.
    """
    write, (body, pasts) = parts.write, step_of(parts, operators, BRANCH)
    step(body, start.padding)
    ended = write.node("Expand", write.store("not_ended", np.array([False])), start.column)
    carried = [start.ids, "positions", ended, *start.pasts]
    *_, tokens, highest = write.nodes_of(
        "Loop", "turns", "", *carried, outputs=len(carried) + 2, body=_turn(body, pasts, start.after)
    )
    write.name_output(tokens, "tokens")
    write.name_output(highest, "highest")
    return [
        value("tokens", TensorProto.INT64, ["written", "written_rows"]),
        value("highest", TensorProto.FLOAT, ["written", "written_rows", 1]),
    ]


def step_of(parts: Standard, operators: Operators, branch: str) -> tuple[Standard, list[str]]:
    """What writes a step as the body of a loop, and the names of its keys and values so far."""
    write, layers = parts.write, len(parts.plan.decoder_heads)
    pasts = layer_names("past_", layers)
    left = {name: f"{branch}.{name}" for name in ("input_ids", "positions", *pasts)}
    source = {f"source_{name}": name for name in [*layer_names("", layers), *parts.output_parts]}
    return operators(parts.plan, Writer(write.weights, write.stored, branch, left | source)), pasts


def _nothing(parts: Standard, rows: str) -> list[str]:
    """Keys and values of no tokens for each layer of the decoder."""
    write, made, found = parts.write, dict[str, str](), list[str]()
    for layer, heads in enumerate(parts.plan.decoder_heads):
        width = width_in(write.weights, f"decoder.{layer}.attention.out")
        sizes = write.whole(heads, 0, width // heads)
        if sizes not in made:
            shape = write.node("Concat", rows, sizes, axis=0)
            made[sizes] = write.node(
                "ConstantOfShape", shape, value=helper.make_tensor("zero", parts.real_type, [1], [0])
            )
        found += [made[sizes]] * 2
    return found


def _turn(parts: Standard, pasts: list[str], first: str) -> onnx.GraphProto:
    """A step and its choice, as the body of the loop; the first choice stands at the place `first`."""
    write = parts.write
    shortened = has_shortlist(write.weights)
    barred = write.node("Gather", "barred", "words") if shortened else "barred"
    allowed = write.node("Add", f"{BRANCH}.logits", barred)
    highest, chosen = write.nodes_of("TopK", allowed, write.whole(1), outputs=2, axis=1)
    if shortened:
        chosen = write.node("Gather", "words", chosen)
    ended = write.node("Or", f"{BRANCH}.ended", write.node("Equal", chosen, "end"))
    going = write.node("Not", write.node("ReduceMin", ended, keepdims=0))
    after = write.node("Add", first, "number")
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
        value(write.node("Squeeze", chosen, write.whole(1)), TensorProto.INT64, ["rows"]),
        value(highest, TensorProto.FLOAT, ["rows", 1]),
    ]
    return helper.make_graph(write.nodes, BRANCH, inputs, outputs)
