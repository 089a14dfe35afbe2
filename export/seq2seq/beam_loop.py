"""Beam search inside of the graph, for one sentence: one run instead of one for each token.

The rules are those of `export.beams`: twice as many continuations as beams are looked for at each turn; those of the
first half that end are finished hypotheses, of which as many as beams are kept; the best that do not end go on. What
was chosen at each turn comes out, and `export.looped` makes hypotheses of it.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from export.graphs.operators import FLOAT, Operators, Standard
from export.graphs.writer import value
from export.hypotheses import UNLIKELY as LOW
from export.seq2seq.loop import Beginning, step_of
from export.seq2seq.stacks import has_shortlist, step

BRANCH = "beam"
UNLIKELY = float(LOW)
INPUTS = [
    value("beam_turns", TensorProto.INT64, []),
    value("beam_scores", FLOAT, ["beams"]),
    value("norms", FLOAT, ["most_turns"]),
    value("last", TensorProto.INT64, []),
]
OUTPUTS = [
    value("finished", FLOAT, ["beams"]),
    value("going", FLOAT, ["beams"]),
    value("continuations", TensorProto.INT64, ["beam_turns", "twice"]),
    value("parents", TensorProto.INT64, ["beam_turns", "twice"]),
    value("order", TensorProto.INT64, ["beam_turns", "beams"]),
    value("places", TensorProto.INT64, ["beam_turns", "beams"]),
    value("sums", FLOAT, ["beam_turns"]),
]


def write_beams(parts: Standard, operators: Operators, start: Beginning) -> None:
    """Append the loop to the graph that has encoded a source; a run without beams passes it by."""
    write, (body, pasts) = parts.write, step_of(parts, operators, BRANCH)
    step(body, start.padding, body.write.whole(1))
    none = helper.make_tensor("none", FLOAT, [1], [UNLIKELY])
    unfinished = write.node("ConstantOfShape", write.node("Shape", "beam_scores"), value=none)
    carried = ["beam_scores", unfinished, start.ids, "positions", *start.pasts]
    turn = _turn(body, pasts, start.after)
    found = write.nodes_of("Loop", "beam_turns", "", *carried, outputs=len(carried) + 5, body=turn)
    for name, output in zip([found[1], found[0], *found[-5:]], OUTPUTS, strict=True):
        write.name_output(name, output.name)


def _turn(parts: Standard, pasts: list[str], first: str) -> onnx.GraphProto:
    """A step, its continuations, and what becomes of them, as the body of the loop; the first stand at `first`."""
    write, node = parts.write, parts.write.node
    scores, width = f"{BRANCH}.scores", node("Shape", f"{BRANCH}.scores")
    twice = node("Mul", width, write.whole(2))
    continuations, parents, totals, best, total = _continuations(parts, scores, twice)
    ends = node("Or", node("Equal", continuations, "end"), node("Equal", "number", "last"))
    norm = node("Gather", "norms", "number")
    unlikely = write.real(UNLIKELY)
    halves = (write.whole(0), width, write.whole(0))
    ended = node("Slice", ends, *halves)
    new = node("Where", ended, node("Div", node("Slice", best, *halves), norm), unlikely)
    finished, places = write.nodes_of("TopK", node("Concat", f"{BRANCH}.finished", new, axis=0), width, outputs=2)
    open_scores = node("Where", ends, node("Add", best, unlikely), best)
    going, order = write.nodes_of("TopK", open_scores, width, outputs=2)
    hope = node("Div", node("Gather", going, write.scalar(0)), norm)
    better = node("Greater", hope, node("ReduceMin", finished, keepdims=0))
    last_row = node("Sub", node("Shape", totals, end=1), write.whole(1))
    rows = node("Min", node("Gather", parents, order), last_row)
    ids = node("Unsqueeze", node("Gather", continuations, order), write.whole(1))
    after = node("Add", first, "number")
    caches = [node("Gather", name.replace("past_", f"{BRANCH}."), rows, axis=0) for name in pasts]
    inputs = [
        value("number", TensorProto.INT64, []),
        value("go", TensorProto.BOOL, []),
        value(scores, FLOAT),
        value(f"{BRANCH}.finished", FLOAT),
        value(f"{BRANCH}.input_ids", TensorProto.INT64),
        value(f"{BRANCH}.positions", TensorProto.INT64),
        *(value(f"{BRANCH}.{name}", parts.real_type) for name in pasts),
    ]
    outputs = [
        value(better, TensorProto.BOOL),
        value(going, FLOAT),
        value(finished, FLOAT),
        value(ids, TensorProto.INT64),
        value(after, TensorProto.INT64),
        *(value(name, parts.real_type) for name in caches),
        value(continuations, TensorProto.INT64, ["twice"]),
        value(parents, TensorProto.INT64, ["twice"]),
        value(order, TensorProto.INT64, ["beams"]),
        value(places, TensorProto.INT64, ["beams"]),
        value(total, FLOAT, []),
    ]
    return helper.make_graph(write.nodes, BRANCH, inputs, outputs)


def _continuations(parts: Standard, scores: str, twice: str) -> tuple[str, str, str, str, str]:
    """The likeliest continuations of all beams: tokens, beams, log-probabilities of each row, scores, and a checksum.

    At the first turn there is one row for all beams. The sum of what was looked at is no number where a logit is none.
    """
    write, node = parts.write, parts.write.node
    logits, shortened = f"{BRANCH}.logits", has_shortlist(parts.write.weights)
    barred = node("Gather", "barred", "words") if shortened else "barred"
    chances = node("Add", node("LogSoftmax", logits, axis=-1), barred)
    each = node("Min", twice, node("Shape", logits, start=1))
    values, tokens = write.nodes_of("TopK", chances, each, outputs=2)
    totals = node("Add", values, node("Unsqueeze", scores, write.whole(1)))
    best, index = write.nodes_of("TopK", node("Reshape", totals, write.whole(-1)), twice, outputs=2)
    spread = node("Reshape", node("Expand", tokens, node("Shape", totals)), write.whole(-1))
    chosen = node("Gather", spread, index)
    if shortened:
        chosen = node("Gather", "words", chosen)
    return chosen, node("Div", index, each), values, best, node("ReduceSum", values, keepdims=0)
