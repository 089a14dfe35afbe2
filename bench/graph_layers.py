"""Which layer of a model each stored tensor and each node of its graph belongs to, and what a layer stores.

A tensor's layer stands in its name. A node belongs to the last layer of those whose weights or values it reads, so that
attention, sums and activations count with the products before them, and norms with their layer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import numpy_helper

from bench.layer_names import NUMBERED, OUTPUT, REST, layer_of, order
from export.graphs.plan import has_plan, read_plan
from export.graphs.products import (
    SHORTLISTED,
    Weight,
    branches_of,
    nodes_of,
    origin,
    product_weights,
    stored_bytes,
    zeros_by_product,
)

BESIDE_WEIGHTS = re.compile(r"^shortlist\.|[._](?:scale|row_scale|zero_point|smoothing)$")
REAL = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8})


@dataclass(frozen=True)
class StoredLayer:
    """What a graph stores for one layer; sizes that its weights do not tell are None.

    `parameters` are elements of weights, biases and norms, of whatever type; scales and the like are bytes alone.
    `zeros` is the share of zeros in the weights of its products.
    """

    layer: str
    bytes: int = 0
    parameters: int = 0
    products: int = 0
    int8_products: int = 0
    heads: int | None = None
    cross_heads: int | None = None
    neurons: int | None = None
    zeros: float | None = None


@dataclass(frozen=True)
class Naming:
    """What the names of a graph's values say: its last layers, output matrix, stored tensors, and who makes values."""

    last: Mapping[str, str]
    output_table: str
    stored: frozenset[str] = field(repr=False)
    made: Mapping[str, onnx.NodeProto] = field(repr=False)

    def layer_of(self, name: str) -> str | None:
        """The layer that a stored tensor belongs to, after its name; None: to none that is known."""
        return layer_of(name, self.last)

    def multiplied(self, name: str) -> str | None:
        """The layer of a product with this weight, which a table of embeddings may be, too."""
        stored = origin(name, self.made)
        return OUTPUT if stored in (self.output_table, SHORTLISTED) else self.layer_of(stored)


def naming_of(model: onnx.ModelProto) -> Naming:
    """What the names in a graph say, as it was written."""
    found = [match[1] for value in model.graph.initializer if (match := NUMBERED.search(value.name))]
    last = {layer.partition(".")[0]: layer for layer in sorted(found, key=order)}
    table = read_plan(model)[0].output_table if has_plan(model) else ""
    stored = frozenset(value.name for value in model.graph.initializer)
    return Naming(last, table, stored, {output: node for node in nodes_of(model.graph) for output in node.output})


def stored_layers(model: onnx.ModelProto) -> list[StoredLayer]:
    """What each layer of a graph stores, in order; last, as `rest`, what belongs to no layer.

    A matrix that is both embedding and output is stored once, and counted with the embedding; its product is not.
    """
    naming, weights = naming_of(model), product_weights(model.graph)
    named = {value.name: naming.layer_of(value.name) or REST for value in model.graph.initializer}
    bytes_of, parameters = Counter[str](), Counter[str]()
    for value in model.graph.initializer:
        bytes_of[named[value.name]] += stored_bytes(value)
        parameters[named[value.name]] += _parameters(value, weights.get(value.name)) * (named[value.name] != REST)
    products = Counter(naming.multiplied(name) or REST for name in weights)
    int8 = Counter(naming.multiplied(name) or REST for name, weight in weights.items() if weight.is_int8)
    zeros, heads, neurons = _zeros(model, naming), _heads(model, naming), _neurons(model)
    return [
        StoredLayer(
            layer, bytes_of[layer], parameters[layer], products[layer], int8[layer], *heads.get(layer, (None, None)),
            neurons.get(layer), zeros.get(layer),
        )
        for layer in sorted({*bytes_of, *products, REST}, key=order)
    ]  # fmt: skip


def _parameters(value: onnx.TensorProto, weight: Weight | None) -> int:
    """How many parameters of the model a stored tensor holds; in blocks of bytes there may be two in one."""
    if BESIDE_WEIGHTS.search(value.name) or value.data_type not in REAL:
        return 0
    if weight is not None and weight.blocked:
        return weight.elements
    count = 1
    for size in value.dims:
        count *= size
    return count


Heads = tuple[int | None, int | None]
"""Heads of a layer's attention to its own side, and of a decoder's to the source."""


def _heads(model: onnx.ModelProto, naming: Naming) -> dict[str, Heads]:
    """The heads of each layer, from the plan, or from the shapes that split states by head where there is none."""
    if not has_plan(model):
        return {layer: (heads, None) for layer, heads in _split_by_head(model, naming).items()}
    plan = read_plan(model)[0]
    encoder: dict[str, Heads] = {f"encoder.{number}": (heads, None) for number, heads in enumerate(plan.encoder_heads)}
    both = zip(plan.decoder_heads, plan.cross_heads, strict=True)
    return encoder | {f"decoder.{number}": heads for number, heads in enumerate(both)}


def _split_by_head(model: onnx.ModelProto, naming: Naming) -> dict[str, int]:
    """The heads of layers whose states are reshaped to `(0, 0, heads, …)`, 0 being a size that stays."""
    shapes = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer if len(value.dims) == 1}
    layers, found = node_layers(model.graph, naming), dict[str, int]()
    for node in model.graph.node:
        shape = shapes.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and len(shape) == 4 and not shape[:2].any() and shape[2] > 0:
            found.setdefault(layers.get(node.name, REST), int(shape[2]))
    return found


def _neurons(model: onnx.ModelProto) -> dict[str, int]:
    """The neurons of each layer's feed-forward: the inputs of the product that leads out of it."""
    blocked = {
        node.input[1]: next(each.i for each in node.attribute if each.name == "K")
        for node in nodes_of(model.graph)
        if node.op_type == "MatMulNBits"
    }
    down = re.compile(r"^((?:encoder|decoder)\.\d+)\.down\.weight(?:_quantized)?$")
    found = {match[1]: value for value in model.graph.initializer if (match := down.search(value.name))}
    return {layer: blocked.get(value.name, value.dims[0]) for layer, value in found.items()}


def _zeros(model: onnx.ModelProto, naming: Naming) -> dict[str, float]:
    """The share of zeros in the weights of each layer's products."""
    zeros, elements = Counter[str](), Counter[str]()
    for name, found in zeros_by_product(model.graph).items():
        layer = naming.multiplied(name) or REST
        zeros[layer] += found.zeros
        elements[layer] += found.elements
    return {layer: zeros[layer] / elements[layer] for layer in elements if elements[layer]}


def node_layers(graph: onnx.GraphProto, naming: Naming) -> dict[str, str]:
    """The layer of each node, by its name, also in a graph that onnxruntime has rewritten; `rest` where there is none.

    Of nodes that have one name and not one layer none is said.
    """
    found: dict[str, set[str]] = {}
    _walk(graph, naming, {}, found)
    return {name: next(iter(layers)) if len(layers) == 1 else REST for name, layers in found.items()}


def _walk(graph: onnx.GraphProto, naming: Naming, values: dict[str, str | None], found: dict[str, set[str]]) -> None:
    """Find the layers of all nodes of a graph, and write down those of the values that they make."""
    for node in graph.node:
        inner = branches_of(node)
        for each in inner:
            _walk(each, naming, values, found)
        layer = None if inner else _node_layer(node, naming, values)
        if node.name:  # without a name there is none in a profile either
            found.setdefault(node.name, set()).add(layer or REST)
        ends = [[each.name for each in branch.output] for branch in inner] if node.op_type == "If" else []
        for place, output in enumerate(node.output):
            values[output] = _last(values.get(names[place]) for names in ends) if ends else layer


def _node_layer(node: onnx.NodeProto, naming: Naming, values: Mapping[str, str | None]) -> str | None:
    """The last layer of those that a node reads; that of its weight, for a product with the output matrix.

    What follows a product whose weight has no layer's name is of no layer, until a product that has one.
    """
    is_product = "MatMul" in node.op_type or "Gemm" in node.op_type
    weight = naming.multiplied(node.input[1]) if is_product else None
    read = [values[name] if name in values else naming.layer_of(origin(name, naming.made)) for name in node.input]
    nameless = is_product and weight is None and origin(node.input[1], naming.made) in naming.stored
    if nameless or REST in read:
        return weight or REST
    return _last([weight, *read])


def _last(layers: Iterable[str | None]) -> str | None:
    """The last of several layers; None where there is none."""
    return max((layer for layer in layers if layer), key=order, default=None)
