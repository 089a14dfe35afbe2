"""One ONNX graph with two ways through it: encode a source once, then step through the target.

Both ways lie in the branches of one `If`, so that a step runs nothing of the encoder, and all weights lie outside of
the branches, so that what they share is stored once. (`RunOptions.only_execute_path_to_fetches` would need no `If`, but
onnxruntime 1.31 ignores it and runs the encoder in each step.)

inputs   step ()                                      whether this is a step
         input_ids (rows, length)                     of the source, or of the target's newest tokens
         attention_mask (sentences, source)           1 for the source's tokens, 0 for padding
         positions (length)                           of `input_ids` in the target: past, past + 1, …
         past_keys.N, past_values.N                   (rows, heads, past, size), for each layer of the decoder
         source_keys.N, source_values.N               (sentences, heads, source, size)
outputs  logits (rows, vocabulary)                    of the last position; empty after encoding
         keys.N, values.N                             of a step: past and present; of encoding: the source's

Rows are sentences times beams: all beams of a sentence read the same source.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.graphs.operators import Operators, Standard
from export.graphs.plan import Plan, Weights
from export.graphs.writer import Writer, branch, model_of, tensors, value
from export.seq2seq.stacks import encode, step


def build(plan: Plan, weights: Weights, opset: int, operators: Operators = Standard) -> onnx.ModelProto:
    """The graph of a translation model; `operators` say in which operators its parts are written."""
    stored: dict[str, NDArray[Any]] = {}
    encoding, stepping = (operators(plan, Writer(weights, stored, branch)) for branch in ("encode", "step"))
    encode(encoding)
    step(stepping)
    outputs = _outputs(plan)
    names = [output.name for output in outputs]
    node = helper.make_node(
        "If", ["step"], names, name="step_or_encode",
        then_branch=_branch(stepping, names), else_branch=_branch(encoding, names),
    )  # fmt: skip
    graph = helper.make_graph([node], "translation", _inputs(plan, weights), outputs, tensors(stored))
    return model_of(graph, plan, opset, stepping.domains)


def _branch(parts: Standard, names: list[str]) -> onnx.GraphProto:
    """One branch: its outputs are the graph's, under names of its own."""
    return branch(parts.write, [f"{parts.write.branch}.{name}" for name in names])


def layer_names(stem: str, layers: int) -> list[str]:
    """Names of keys and values of each layer: `stem_keys.0, stem_values.0, stem_keys.1 …`."""
    return [f"{stem}{part}.{layer}" for layer in range(layers) for part in ("keys", "values")]


def _inputs(plan: Plan, weights: Weights) -> list[onnx.ValueInfoProto]:
    """The graph's inputs, as above."""
    layers = range(len(plan.decoder_heads))
    own, cross = (
        [weights[f"decoder.{i}.{kind}.out.weight"].shape[0] for i in layers] for kind in ("attention", "cross")
    )
    return [
        value("step", TensorProto.BOOL, []),
        value("input_ids", TensorProto.INT64, ["rows", "length"]),
        value("attention_mask", TensorProto.INT64, ["sentences", "source"]),
        value("positions", TensorProto.INT64, ["length"]),
        *_caches("past_", "rows", "past", plan.decoder_heads, own),
        *_caches("source_", "sentences", "source", plan.cross_heads, cross),
    ]


def _caches(stem: str, rows: str, length: str, heads: tuple[int, ...], widths: list[int]) -> list[onnx.ValueInfoProto]:
    """Keys and values of each layer, `widths` being heads times size."""
    shapes = chain.from_iterable([(n, w // n)] * 2 for n, w in zip(heads, widths, strict=True))
    names = layer_names(stem, len(heads))
    return [
        value(name, TensorProto.FLOAT, [rows, n, length, size]) for name, (n, size) in zip(names, shapes, strict=True)
    ]


def _outputs(plan: Plan) -> list[onnx.ValueInfoProto]:
    """The graph's outputs, as above."""
    caches = layer_names("", len(plan.decoder_heads))
    shape: list[str | int] = ["out_rows", "out_heads", "out_length", "out_size"]
    return [
        value("logits", TensorProto.FLOAT, ["logit_rows", "vocabulary"]),
        *(value(name, TensorProto.FLOAT, shape) for name in caches),
    ]
