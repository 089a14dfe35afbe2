"""Outlier channels handed from activations to weights, before int8 (after Xiao et al. 2022, "SmoothQuant").

After a layer norm one channel of 384 may reach 28 where the others stay near 2: one int8 scale for all of them leaves
the others a few steps. Dividing channel j of the activations by s_j and multiplying row j of the weight by it changes
no product. SmoothQuant's s_j balances all channels of both sides. Here it is max|x_j| over twice the median channel's,
and 1 where a channel does not stand out: training gave large channels small weights, which have room, and what was
small stays untouched. On trained students it left half of the error that SmoothQuant's balance did.

The residual reads the same norm, so that the division cannot be folded into it; it is a node of its own, and written
only where a channel stands out by much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.quantization.watch import Batch, Floats, usual, watch

CAP = 2.0
"""How many times the median channel's range is left to a channel."""

STANDS_OUT = 6.0
"""How many times the median the largest range has to be: below it, nothing is gained for the node's time."""


def smooth(graph: onnx.ModelProto, batches: Iterable[Batch]) -> onnx.ModelProto:
    """The same graph with its outlier channels evened out; ranges are the largest values on `batches`."""
    found = onnx.ModelProto()
    found.CopyFrom(graph)
    readers = _readers(found.graph)
    peaks = _peaks(graph, list(readers), batches)
    for name, products in readers.items():
        if peaks[name].max() > STANDS_OUT * usual(peaks[name]):
            _divide(found.graph, name, products, peaks[name])
    return found


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The products of each activation with stored weights `(in, out)` that nothing else reads."""
    stored = {value.name for value in graph.initializer if len(value.dims) == 2}
    counts: dict[str, int] = {}
    for name in (name for node in graph.node for name in node.input):
        counts[name] = counts.get(name, 0) + 1
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored and counts[node.input[1]] == 1:
            found.setdefault(node.input[0], []).append(node)
    return found


def _peaks(graph: onnx.ModelProto, names: Sequence[str], batches: Iterable[Batch]) -> dict[str, Floats]:
    """The largest magnitude of each channel `(channels,)` of these activations."""
    peaks: dict[str, Floats] = {}
    for found in watch(graph, names, batches):
        for name, values in found.items():
            peak = np.abs(values).max(axis=0)
            peaks[name] = np.maximum(peaks.get(name, peak), peak)
    return peaks


def _divide(graph: onnx.GraphProto, name: str, products: Sequence[onnx.NodeProto], peak: Floats) -> None:
    """Put a division before these products of one activation, and its inverse into their weights."""
    stored = {value.name: value for value in graph.initializer}
    scale = scales(peak)
    for product in products:
        weight = stored[product.input[1]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * scale[:, None], weight.name))
    stem = products[0].input[1].removesuffix(".weight")
    factor, smoothed = f"{stem}.smoothing", f"{name}.smooth"
    graph.initializer.append(numpy_helper.from_array((1 / scale).astype(np.float32), factor))
    first = min(index for index, node in enumerate(graph.node) if node in products)
    for product in products:
        product.input[0] = smoothed
    graph.node.insert(first, helper.make_node("Mul", [name, factor], [smoothed], name=f"smooth {name}"))


def scales(peaks: Floats) -> Floats:
    """s_j for the largest magnitude of each channel, `(channels,)`; 1 for all that do not stand out."""
    return np.asarray(np.maximum(peaks / (CAP * usual(peaks)), 1), np.float32)
