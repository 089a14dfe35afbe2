"""A translation model as one pass without loops: a source and the target that is given, so that all can be watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from compress.quantization.shortlist import Pair
from compress.quantization.watch import Batch
from export.decoding import Decoding
from export.graphs.operators import Standard
from export.graphs.plan import Plan, Weights, read_plan
from export.graphs.writer import Writer, model_of, opset_of, tensors, value
from export.seq2seq.stacks import encode, layer_names, step

INPUTS = ("input_ids", "attention_mask", "target_ids", "positions")


def forced(model: onnx.ModelProto) -> onnx.ModelProto:
    """The encoder and one step of the decoder over a whole target, for one sentence at a time.

    Inputs are the ids of a source and its mask `(1, source)`, the target's ids `(1, target)` and its positions
    `(target,)`. The logits are those of the target's last place.

    Raises:
        BundleError: the graph has no plan.
    """
    plan, weights = read_plan(model)
    stored: dict[str, NDArray[Any]] = {}
    layers = len(plan.decoder_heads)
    sources = {f"source_{name}": f"encode.{name}" for name in layer_names("", layers)}
    encoding = Standard(plan, Writer(weights, stored, "encode"))
    padding = encoding.padding("attention_mask")
    encode(encoding, padding)
    read = {"input_ids": "target_ids"} | sources | _nothing(plan, weights, stored)
    stepping = Standard(plan, Writer(weights, stored, "step", read))
    step(stepping, padding)
    shapes: dict[str, list[str | int]] = {"positions": ["target"]}
    inputs = [value(name, TensorProto.INT64, shapes.get(name, ["rows", name])) for name in INPUTS]
    outputs = [value("step.logits", TensorProto.FLOAT)]
    nodes = [*encoding.write.nodes, *stepping.write.nodes]
    graph = helper.make_graph(nodes, "forced", inputs, outputs, tensors(stored))
    return model_of(graph, plan, opset_of(model), ())


def _nothing(plan: Plan, weights: Weights, stored: dict[str, NDArray[Any]]) -> dict[str, str]:
    """Keys and values of no tokens, stored for each layer, and what a step calls them."""
    found = {}
    for layer, heads in enumerate(plan.decoder_heads):
        width = weights[f"decoder.{layer}.attention.out.weight"].shape[0]
        for part in ("keys", "values"):
            found[f"past_{part}.{layer}"] = name = f"nothing.{part}.{layer}"
            stored[name] = np.zeros((1, heads, 0, width // heads), np.float32)
    return found


def teacher_forced(pairs: Sequence[Pair], rules: Decoding) -> list[Batch]:
    """One batch for each pair of ids, its target cut off after as many tokens as it has a number.

    So the last places, which alone are read for logits, are spread over the targets.
    """
    return [_batch(source, target, rules, number) for number, (source, target) in enumerate(pairs)]


def _batch(source: Sequence[int], target: Sequence[int], rules: Decoding, number: int) -> Batch:
    """One of them."""
    begin = [rules.start, *([] if rules.forced_start is None else [rules.forced_start])]
    words = [token for token in target if token != rules.end][: rules.max_length - len(begin)]
    ids = np.array([[*begin, *words[: number % (len(words) + 1)]]], np.int64)
    read = np.array([source], np.int64)
    return {
        "input_ids": read, "attention_mask": np.ones_like(read), "target_ids": ids, "positions": np.arange(ids.size),
    }  # fmt: skip
