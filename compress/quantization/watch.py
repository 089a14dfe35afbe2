"""The products of a graph, and what they read while it runs: all of it watched in one session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graphs.products import PRODUCTS

Batch = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float32]
NAMED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Product:
    """A product with a stored weight `(inputs, outputs)`: its node, and the activation `states` that it reads.

    `bias` is what is added to it right after, `(outputs,)` or 0.
    """

    name: str
    node: str
    states: str
    weight: Floats
    bias: Floats


@dataclass(frozen=True, eq=False)
class Watched:
    """A float graph without branches, its products, and what it reads, one text a batch so that nothing is padding."""

    graph: onnx.ModelProto
    products: tuple[Product, ...]
    batches: Sequence[Batch]

    def states(self) -> Iterator[dict[str, Floats]]:
        """What the products read, `(values, channels)` by activation, batch by batch."""
        return watch(self.graph, list(dict.fromkeys(each.states for each in self.products)), self.batches)


def products(graph: onnx.ModelProto, named: Mapping[str, str] = NAMED) -> tuple[Product, ...]:
    """The products of a graph without branches, in its order.

    They are called like their weights, without `.weight`; `named` has other names for some weights.
    """
    stored = {value.name: value for value in graph.graph.initializer}
    biases = _biases(graph.graph)
    return tuple(
        _product(node, stored[node.input[1]], stored.get(biases.get(node.output[0], "")), named)
        for node in graph.graph.node
        if node.op_type in PRODUCTS and node.input[1] in stored
    )


def _biases(graph: onnx.GraphProto) -> dict[str, str]:
    """The stored vectors that are added to values, by the names of these."""
    vectors = {value.name for value in graph.initializer if len(value.dims) == 1}
    found = {}
    for node in graph.node:
        if node.op_type == "Add" and vectors & set(node.input):
            bias, value = sorted(node.input, key=lambda name: name not in vectors)
            found[value] = bias
        elif node.op_type == "Gemm" and len(node.input) > 2:
            found[node.output[0]] = node.input[2]
    return found


def _product(
    node: onnx.NodeProto, stored: onnx.TensorProto, bias: onnx.TensorProto | None, named: Mapping[str, str]
) -> Product:
    """One of them."""
    added = np.zeros((), np.float32) if bias is None else numpy_helper.to_array(bias)
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    weight = numpy_helper.to_array(stored)
    name = named.get(stored.name, stored.name.removesuffix(".weight"))
    return Product(name, node.name, node.input[0], weight.T if turned else weight, added)


def watch(graph: onnx.ModelProto, names: Sequence[str], batches: Iterable[Batch]) -> Iterator[dict[str, Floats]]:
    """What these activations are, `(values, channels)`, batch by batch."""
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    own = {value.name for value in watched.graph.output}
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in own)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]
    for batch in batches:
        found = session.run(names, {key: batch[key] for key in wanted})
        yield {name: value.reshape(-1, value.shape[-1]) for name, value in zip(names, found, strict=True)}


def usual(peaks: Floats) -> float:
    """The median channel's largest magnitude, of those that have any."""
    alive = peaks[peaks > 0]
    return float(np.median(alive)) if len(alive) else 1.0
