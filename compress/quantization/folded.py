"""Weights that a traced graph rounds to int8 on every run, stored as int8 instead, the way round products read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

PREFIX = "model."
"""What the exporter's wrapper puts before the names of weights."""


def store_weights(model: ir.Model) -> None:
    """Replace each stored float weight `(out, in)` between rounding nodes by int8 numbers `(in, out)`, in place.

    A tracer leaves `QuantizeLinear`, `Clip`, `DequantizeLinear` and a turn between a weight and its product; what
    stays is one `DequantizeLinear` with a scale a column.
    """
    for node in list(model.graph):
        rounding = _rounding(node)
        if rounding is not None:
            _store(model.graph, node, *rounding)
    RemoveUnusedNodesPass()(model)


def _rounding(node: ir.Node) -> tuple[ir.Node, tuple[int, int]] | None:
    """The node that rounds the stored weight which this one makes floats of, and the limits of its numbers."""
    if node.op_type != "DequantizeLinear":
        return None
    before, limits = _before(node), (-128, 127)
    if before is not None and before.op_type == "Clip":
        limits = (int(_numbers(before, 1)), int(_numbers(before, 2)))
        before = _before(before)
    if before is None or before.op_type != "QuantizeLinear":
        return None
    weight = before.inputs[0]
    return (before, limits) if weight is not None and weight.is_initializer() else None


def _before(node: ir.Node) -> ir.Node | None:
    """What makes a node's first input."""
    first = node.inputs[0]
    return None if first is None else first.producer()


def _numbers(node: ir.Node, index: int) -> NDArray[Any]:
    """A stored input."""
    value = node.inputs[index]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    assert tensor is not None, f"{node.name}: input {index} is not stored"
    return tensor.numpy()


def _store(graph: ir.Graph, node: ir.Node, rounding: ir.Node, limits: tuple[int, int]) -> None:
    """Store one weight, and let its products read it."""
    weight, scale = _numbers(rounding, 0), _numbers(rounding, 1)
    numbers = np.clip(np.rint(weight / scale[:, None]), *limits).astype(np.int8)
    stem = (rounding.inputs[0].name or "").removeprefix(PREFIX) if rounding.inputs[0] is not None else ""
    stored = [_stored(graph, f"{stem}_quantized", numbers.T), _stored(graph, f"{stem}_scale", scale)]
    opened = ir.node("DequantizeLinear", stored, attributes={"axis": 1}, name=f"{stem}_open")
    found = opened.outputs[0]
    found.name, found.dtype, found.shape = f"{stem}_opened", ir.DataType.FLOAT, ir.Shape(numbers.T.shape)
    graph.insert_before(node, opened)
    for use in list(node.outputs[0].uses()):
        if use.node.op_type == "Transpose":
            use.node.outputs[0].replace_all_uses_with(found)
        else:
            assert use.node.op_type == "Gemm", use.node.op_type
            use.node.replace_input_with(use.idx, found)
            use.node.attributes.pop("transB", None)


def _stored(graph: ir.Graph, name: str, numbers: NDArray[Any]) -> ir.Value:
    """A stored tensor."""
    tensor = ir.tensor(np.ascontiguousarray(numbers), name=name)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(numbers.shape))
    value.dtype = tensor.dtype
    graph.register_initializer(value)
    return value
