"""One ONNX graph with two ways through it: encode a source once, then step through the target.

Mostly nobody has to step: after encoding a loop writes `turns` tokens greedily (`export/seq2seq/loop.py`), or another
one searches with beams (`export/seq2seq/beam_loop.py`).

Both ways lie in the branches of one `If`, so that a step runs nothing of the encoder, and all weights lie outside of
the branches, so that what they share is stored once. (`RunOptions.only_execute_path_to_fetches` would need no `If`, but
onnxruntime 1.31 ignores it and runs the encoder in each step.)

inputs   step ()                                      whether this is a step
         input_ids (rows, length)                     of the source, or of the target's newest tokens
         attention_mask (sentences, source)           1 for the source's tokens, 0 for padding
         positions (length)                           of `input_ids` in the target: past, past + 1, …
         past_keys.N, past_values.N                   (rows, heads, past, size), for each layer of the decoder
         source_keys.N, source_values.N               (sentences, heads, source, size)
         turns ()                                     after encoding: write so many tokens at most
         prefix (length)                              what they follow; its places are `positions`
         end ()                                       the token after which a row has ended
         barred (vocabulary)                          added to logits: minus infinity for what is never written
         beam_turns ()                                the same as turns, for a search of the one sentence
         beam_scores (beams)                          0, and for all other beams a very unlikely score
         norms (turns)                                what the scores of hypotheses that end at a turn are divided by
         last ()                                      the turn at which all beams end, where none is forced to
         source_matrix, source_scale, source_bias     with a shortlist: what the words below have of the output matrix
         rows, sentences                              in graphs for GPUs: which rows of the past, and which sentences of
                                                      the source, a step goes on with
outputs  logits (rows, vocabulary)                    of the last position of a step; else empty
         keys.N, values.N                             of a step: past and present; of encoding: the source's
         tokens (written, rows)                       written after encoding, until all rows have ended; else empty
         highest (written, rows, 1)                   their logits
         finished, going (beams)                      of a search: scores of the best hypotheses, and of what went on
         continuations, parents (turns, 2 * beams)    what was looked at: tokens, and the beams they go on from
         order (turns, beams)                         which of these went on
         places (turns, beams)                        which of the finished so far, and of the first half of these, are
                                                      the best finished hypotheses
         sums (turns)                                 no numbers where a logit is none
         words (words)                                with a shortlist, of encoding: what the logits of steps are of
         matrix, scale, bias                          and their part of the output matrix

Rows are sentences times beams: all beams of a sentence read the same source.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.graphs.operators import Operators, Standard
from export.graphs.plan import Plan, Weights, width_in
from export.graphs.writer import Writer, branch, model_of, tensors, value
from export.seq2seq import beam_loop
from export.seq2seq.beam_loop import write_beams
from export.seq2seq.loop import begin, write_greedily
from export.seq2seq.stacks import encode, has_shortlist, layer_names, step

SELECTED = ("rows", "sentences")


def build(plan: Plan, weights: Weights, opset: int, operators: Operators = Standard) -> onnx.ModelProto:
    """The graph of a translation model; `operators` say in which operators its parts are written."""
    stored: dict[str, NDArray[Any]] = {}
    encoding, stepping, whole = (operators(plan, Writer(weights, stored, name)) for name in ("encode", "step", "write"))
    padding = whole.padding("attention_mask")
    encode(encoding, padding)
    if stepping.selects:
        _select(stepping.write, len(plan.decoder_heads))
    step(stepping, padding, stepping.write.node("Shape", "attention_mask", end=1))
    outputs = [*_outputs(stepping), *(_shortlist_values(stepping, "") if has_shortlist(weights) else [])]
    for each in outputs[1 + 2 * len(plan.decoder_heads) :]:
        _leave_empty(stepping.write, each)
    node = helper.make_node(
        "If", ["step"], [output.name for output in outputs], name="step_or_encode",
        then_branch=_branch(stepping, outputs), else_branch=_branch(encoding, outputs),
    )  # fmt: skip
    whole.write.nodes.append(node)
    start = begin(whole, padding)
    outputs += write_greedily(whole, operators, start)
    write_beams(whole, operators, start)
    outputs += beam_loop.OUTPUTS
    inputs = [*_inputs(stepping), *(_shortlist_values(stepping, "source_") if has_shortlist(weights) else [])]
    graph = helper.make_graph(whole.write.nodes, "translation", inputs, outputs, tensors(stored))
    return model_of(graph, plan, opset, stepping.domains)


def _select(write: Writer, layers: int) -> None:
    """Let what follows read some rows of the past, and some sentences of the source."""
    for stem, chosen in zip(("past_", "source_"), SELECTED, strict=True):
        write.inputs |= {name: write.node("Gather", name, chosen, axis=0) for name in layer_names(stem, layers)}


def _shortlist_values(parts: Standard, stem: str) -> list[onnx.ValueInfoProto]:
    """A shortlist's words and their part of the output matrix as outputs; after a `stem` that part alone, as inputs."""
    shapes: dict[str, list[str | int]] = {"matrix": ["matrix_rows", "matrix_columns"]}
    words = [] if stem else [value("words", TensorProto.INT64, ["words"])]
    sizes = {name: shapes.get(name, ["words"]) for name in parts.output_parts}
    return words + [value(f"{stem}{name}", kind, sizes[name]) for name, kind in parts.output_parts.items()]


def _leave_empty(write: Writer, output: onnx.ValueInfoProto) -> None:
    """An output that only the other branch has."""
    kind = helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type)
    shape = (0,) * len(output.type.tensor_type.shape.dim)
    nothing = write.store(f"empty.{output.name}", np.zeros(shape, kind))
    write.name_output(write.node("Identity", nothing), f"{write.branch}.{output.name}")


def _branch(parts: Standard, outputs: list[onnx.ValueInfoProto]) -> onnx.GraphProto:
    """One branch: its outputs are the graph's, under names of its own."""
    stem = parts.write.branch
    return branch(parts.write, [value(f"{stem}.{each.name}", each.type.tensor_type.elem_type) for each in outputs])


def _inputs(parts: Standard) -> list[onnx.ValueInfoProto]:
    """The graph's inputs, as above."""
    plan, weights, kind = parts.plan, parts.write.weights, parts.real_type
    layers = range(len(plan.decoder_heads))
    own, cross = ([width_in(weights, f"decoder.{i}.{part}.out") for i in layers] for part in ("attention", "cross"))
    return [
        value("step", TensorProto.BOOL, []),
        value("input_ids", TensorProto.INT64, ["rows", "length"]),
        value("attention_mask", TensorProto.INT64, ["sentences", "source"]),
        value("positions", TensorProto.INT64, ["length"]),
        *_caches("past_", kind, "rows", "past", plan.decoder_heads, own),
        *_caches("source_", kind, "sentences", "source", plan.cross_heads, cross),
        value("turns", TensorProto.INT64, []),
        value("prefix", TensorProto.INT64, ["prefix"]),
        value("end", TensorProto.INT64, []),
        value("barred", TensorProto.FLOAT, ["vocabulary"]),
        *beam_loop.INPUTS,
        *(value(name, TensorProto.INT64, [f"chosen_{name}"]) for name in SELECTED if parts.selects),
    ]


def _caches(
    stem: str, kind: int, rows: str, length: str, heads: tuple[int, ...], widths: list[int]
) -> list[onnx.ValueInfoProto]:
    """Keys and values of each layer, `widths` being heads times size."""
    shapes = chain.from_iterable([(n, w // n)] * 2 for n, w in zip(heads, widths, strict=True))
    names = layer_names(stem, len(heads))
    return [value(name, kind, [rows, n, length, size]) for name, (n, size) in zip(names, shapes, strict=True)]


def _outputs(parts: Standard) -> list[onnx.ValueInfoProto]:
    """The graph's outputs, as above."""
    caches = layer_names("", len(parts.plan.decoder_heads))
    shape: list[str | int] = ["out_rows", "out_heads", "out_length", "out_size"]
    return [
        value("logits", TensorProto.FLOAT, ["logit_rows", "vocabulary"]),
        *(value(name, parts.real_type, shape) for name in caches),
    ]
