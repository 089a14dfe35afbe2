"""Rewrites of an exported encoder that give the same answers from fewer or cheaper nodes.

Each was kept because it was measured to be faster on the CPU; `docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Where"})
ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})
POSITIONWISE = ROUNDING | {
    "LayerNormalization", "Gelu", "Relu", "Tanh", "Erf", "Cast", "Softmax", "Sigmoid", "Identity"
}  # fmt: skip


def rewrite(model: ir.Model, prefix: str) -> None:
    """Apply every rewrite to `model` in place; `prefix` is what the exporter's wrapper put before weights' names."""
    name_weights(model.graph, prefix)
    freeze_shapes(model.graph)
    first_position_only(model.graph)
    keep_normalisation_apart(model.graph)
    RemoveUnusedNodesPass()(model)


def name_weights(graph: ir.Graph, prefix: str) -> None:
    """Call weights as the checkpoint does, and a product's folded weight after its bias, not `val_87`."""
    for value in list(graph.initializers.values()):
        value.name = (value.name or "").removeprefix(prefix)
    for node in list(graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or not weight.is_initializer():
            continue
        bias = next((b for use in node.outputs[0].uses() for b in use.node.inputs if b and _ends(b, ".bias")), None)
        name = bias.name.removesuffix("bias") + "weight" if bias is not None and bias.name else ""
        if name and name not in graph.initializers:
            weight.name = name


def _ends(value: ir.Value, suffix: str) -> bool:
    """Whether this is a stored weight with such a name."""
    return value.is_initializer() and (value.name or "").endswith(suffix)


def freeze_shapes(graph: ir.Graph) -> None:
    """Give `Reshape` a constant shape where it only copies dimensions, instead of one computed from the input.

    Without this, half a dozen nodes compute batch and length again on every run.
    """
    for node in list(graph):
        shape = _frozen_shape(node) if node.op_type == "Reshape" else None
        if shape is None:
            continue
        node.replace_input_with(1, _constant(graph, f"{node.outputs[0].name}_shape", shape))
        node.attributes.pop("allowzero", None)  # with it, 0 would be a length and not "as it was"


def _frozen_shape(node: ir.Node) -> list[int] | None:
    """The output's shape with 0 for each copied dimension, where that says it all."""
    source, target = node.inputs[0], node.outputs[0]
    if (
        source is None
        or source.shape is None
        or target.shape is None
        or ir.convenience.get_const_tensor(_shape_input(node))
    ):
        return None
    frozen = []
    for axis, size in enumerate(target.shape):
        copied = axis < len(source.shape) and source.shape[axis] == size and not isinstance(size, int)
        frozen.append(0 if copied else size if isinstance(size, int) else -1)
    return frozen if frozen.count(-1) <= 1 else None


def _shape_input(node: ir.Node) -> ir.Value:
    """The second input of a `Reshape`, which is always there."""
    shape = node.inputs[1]
    assert shape is not None
    return shape


def _constant(graph: ir.Graph, name: str, numbers: Sequence[int]) -> ir.Value:
    """A stored vector of whole numbers."""
    array = np.asarray(numbers, np.int64)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
    value.dtype = ir.DataType.INT64
    graph.register_initializer(value)
    return value


def first_position_only(graph: ir.Graph) -> None:
    """Compute the last layer for the first token alone, where the head reads nothing else.

    Classifiers of the BERT family look at one position of the last layer. Queries, attention output, feed-forward and
    norms of all others are never read; only keys and values are. Walks back from the head's `Gather` as long as all
    readers of a value need one position, and cuts what comes in from outside down to it.
    """
    for head in [node for node in graph if _reads_first_position(node)]:
        states = head.inputs[0]
        if states is not None:
            _narrow(graph, head, states)


def _reads_first_position(node: ir.Node) -> bool:
    """Whether this picks position 0 of `(batch, length, width)`."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1 or node.inputs[1] is None:
        return False
    index = ir.convenience.get_const_tensor(node.inputs[1])
    return index is not None and index.numpy().ndim == 0 and int(index.numpy()) == 0


def _narrow(graph: ir.Graph, head: ir.Node, states: ir.Value) -> None:
    """Narrow everything above `states` that serves `head` alone to one position."""
    wanted: dict[ir.Value, list[tuple[ir.Node, int, int]]] = {states: [(head, 0, 1)]}
    for node in reversed(list(graph)):
        value = node.outputs[0]
        readers = wanted.get(value)
        if readers is None:
            continue
        operands = _operands(node, readers[0][2]) if _all_narrow(value, readers) else None
        if operands is None:
            continue
        del wanted[value]
        for index, axis in operands:
            operand = node.inputs[index]
            if operand is not None:
                wanted.setdefault(operand, []).append((node, index, axis))
    for value, readers in wanted.items():
        _cut(graph, value, readers)


def _all_narrow(value: ir.Value, readers: list[tuple[ir.Node, int, int]]) -> bool:
    """Whether nobody else reads `value`, and all who do mean the same axis."""
    axes = {axis for _, _, axis in readers}
    return len(value.uses()) == len(readers) and len(axes) == 1 and not value.is_graph_output()


def _operands(node: ir.Node, axis: int) -> list[tuple[int, int]] | None:
    """Which inputs, along which axis, have to be narrowed to narrow the output along `axis`; None: cannot be."""
    if node.op_type in POSITIONWISE:
        return [(0, axis)]
    if node.op_type in ELEMENTWISE:
        return list(_broadcast(node, axis))
    if node.op_type == "Transpose":
        return [(0, list(node.attributes.get_ints("perm"))[axis])]
    if (
        node.op_type == "MatMul"
        and _rank(node.outputs[0]) - 2 == axis
        and _rank(node.inputs[0]) == _rank(node.outputs[0])
    ):
        return [(0, axis)]
    if node.op_type == "Reshape" and axis == 1 and _copies(node, axis):
        return [(0, axis)]
    return None


def _broadcast(node: ir.Node, axis: int) -> Iterator[tuple[int, int]]:
    """The inputs of an elementwise node that have a length of their own along the output's `axis`."""
    for index, value in enumerate(node.inputs):
        own = axis - _rank(node.outputs[0]) + _rank(value)
        if value is not None and value.shape is not None and own >= 0 and value.shape[own] != 1:
            yield index, own


def _copies(node: ir.Node, axis: int) -> bool:
    """Whether a `Reshape` leaves this axis and those before it as they were."""
    shape = ir.convenience.get_const_tensor(_shape_input(node))
    return shape is not None and not shape.numpy()[: axis + 1].any() and not node.attributes.get_int("allowzero", 0)


def _rank(value: ir.Value | None) -> int:
    """Number of dimensions; the exporter knows it for every value."""
    if value is None or value.shape is None:
        return 0
    return len(value.shape)


def _cut(graph: ir.Graph, value: ir.Value, readers: list[tuple[ir.Node, int, int]]) -> None:
    """Let `readers` see only the first position of `value`."""
    for axis in {axis for _, _, axis in readers}:
        limits = [
            _constant(graph, f"{value.name}_{axis}_{what}", [n]) for what, n in (("from", 0), ("to", 1), ("axis", axis))
        ]
        first = ir.node("Slice", [value, *limits], name=f"{value.name}_{axis}_slice")
        first.outputs[0].name = f"{value.name}_{axis}_first"
        members = [(node, index) for node, index, wanted in readers if wanted == axis]
        graph.insert_before(min((node for node, _ in members), key=list(graph).index), first)
        for node, index in members:
            node.replace_input_with(index, first.outputs[0])


def keep_normalisation_apart(graph: ir.Graph) -> None:
    """Write the residual `Add` before a `LayerNormalization` as `Sum`.

    onnxruntime fuses `Add` and `LayerNormalization` into `SkipLayerNormalization`, whose CPU kernel takes longer than
    the two it replaces; it does not look for `Sum`.
    """
    for node in graph:
        is_residual = node.op_type == "Add" and not any(value and value.is_initializer() for value in node.inputs)
        if is_residual and any(use.node.op_type == "LayerNormalization" for use in node.outputs[0].uses()):
            node.op_type = "Sum"


def strip(model: onnx.ModelProto) -> None:
    """Remove what only the builder knows: stack traces, file names, comments, and inferred shapes.

    Shapes go because `first_position_only` changes them, and because quantizers trip over them.
    """
    _strip_comments(model)
    model.graph.ClearField("value_info")


def _strip_comments(message: Any) -> None:
    """Clear `doc_string` and `metadata_props` of a message and of all it holds."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                _strip_comments(part)
