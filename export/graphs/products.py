"""Products of activations with stored weights: which there are, in what numbers, and how many of these are zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

PRODUCTS = frozenset({"MatMul", "Gemm"})
INT8_PRODUCTS = frozenset({"MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulNBits"})
INT8 = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})
SHORTLISTED = "matrix"
"""What a shortlist keeps of the output matrix is called so; it is stored nowhere."""


@dataclass(frozen=True)
class Weight:
    """A stored weight that products read.

    `kind` is the type of the numbers that are multiplied (int8 where it has fewer bits), `elements` how many there are,
    and `blocked` their bits where they are stored in blocks. What is made while the graph runs has no elements.
    """

    name: str
    kind: int
    elements: int
    blocked: int = 0

    @property
    def is_int8(self) -> bool:
        """Whether its products are int8's."""
        return self.kind in INT8


@dataclass(frozen=True)
class Zeros:
    """How many elements of a weight are zero."""

    zeros: int
    elements: int


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those in branches and loops included."""
    for node in graph.node:
        yield node
        for inner in branches_of(node):
            yield from nodes_of(inner)


def branches_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs inside of a node."""
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def product_weights(graph: onnx.GraphProto) -> dict[str, Weight]:
    """The stored weights that products read, by name; products of two activations (attention) do not count.

    A weight that several places read, in both branches of an `If` for example, stands here once.
    """
    stored = {value.name: value for value in graph.initializer}
    made = {output: node for node in nodes_of(graph) for output in node.output}
    found = (_weight(node, stored, made) for node in nodes_of(graph))
    return {weight.name: weight for weight in found if weight is not None}


def _weight(
    node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], made: Mapping[str, onnx.NodeProto]
) -> Weight | None:
    """The weight that a node multiplies with, if it is a product with a weight."""
    if node.op_type not in PRODUCTS | INT8_PRODUCTS:
        return None
    name = origin(node.input[3 if node.op_type == "QLinearMatMul" else 1], made)
    value = stored.get(name)
    if node.op_type in INT8_PRODUCTS:
        sizes = {each.name: each.i for each in node.attribute}
        if node.op_type == "MatMulNBits":
            return Weight(name, onnx.TensorProto.INT8, sizes["K"] * sizes["N"], sizes["bits"])
        return Weight(name, onnx.TensorProto.INT8, 0 if value is None else prod(value.dims))
    return None if value is None else Weight(name, value.data_type, prod(value.dims))


def origin(name: str, made: Mapping[str, onnx.NodeProto]) -> str:
    """What a weight is called where it is stored: several places may turn the same one, or make floats of it.

    What a translation model encodes, its steps read under another name.
    """
    node = made.get(name)
    if node is not None and node.op_type in ("Transpose", "DequantizeLinear"):
        return origin(node.input[0], made)
    return name.removeprefix("source_")


def stored_bytes(value: onnx.TensorProto) -> int:
    """What a tensor takes; the elements of all types that are stored here are whole bytes."""
    return int(helper.tensor_dtype_to_np_dtype(value.data_type).itemsize * prod(value.dims))


def zeros_by_product(graph: onnx.GraphProto) -> dict[str, Zeros]:
    """How sparse a graph is: the zeros of each stored weight that products read.

    Int8 rounds small weights to zero, so that a dense model has some, too.
    """
    stored = {value.name: value for value in graph.initializer}
    weights = product_weights(graph).values()
    return {
        weight.name: Zeros(_zeros(numpy_helper.to_array(stored[weight.name]), weight), weight.elements)
        for weight in weights
        if weight.name in stored
    }


def _zeros(array: NDArray[Any], weight: Weight) -> int:
    """Zeros of a stored array. Blocks are numbers above the middle of their range, and filled up with that."""
    if not weight.blocked:
        return int(array.size - np.count_nonzero(array))
    halves = [array & 15, array >> 4] if weight.blocked == 4 else [array]
    middle = 2 ** (weight.blocked - 1)
    zeros = sum(int(np.count_nonzero(half == middle)) for half in halves)
    filled = array.size * len(halves) - weight.elements
    return zeros - filled
