"""What quantizing did to a graph: how many matrix products have smaller weights, and where the bytes are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

PRODUCTS = frozenset({"MatMul", "Gemm"})
INT8_PRODUCTS = frozenset({"MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulNBits"})
INT8 = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})
Places = tuple[tuple[str, tuple[str, ...]], ...]

PLACES: Places = (
    ("word embedding", ("embedding.table", "word_embeddings.")),
    ("encoder layers", ("encoder.", "transformer.layer.")),
    ("head", ("classifier.", "pooler.", "head.")),
)
TRANSLATION_PLACES: Places = (
    ("word embedding", ("embedding.table",)),
    ("encoder layers", ("encoder.",)),
    ("decoder layers", ("decoder.",)),
)


@dataclass(frozen=True)
class Products:
    """Products of activations with a stored weight, and how many of these weights are smaller than float32."""

    quantized: int
    total: int

    def __str__(self) -> str:
        """In one line."""
        return f"{self.quantized} of {self.total} products quantized"


def count_products(graph: onnx.GraphProto) -> Products:
    """Count the stored weights that products read; products of two activations (attention) do not count."""
    stored = {value.name: value.data_type for value in graph.initializer}
    nodes = list(_nodes(graph))
    reads = {output: node for node in nodes for output in node.output}
    kinds = {_origin(node.input[1], reads): kind for node in nodes if (kind := _kind(node, stored, reads)) is not None}
    return Products(sum(kinds.values()), len(kinds))


def _origin(name: str, reads: Mapping[str, onnx.NodeProto]) -> str:
    """What a weight is called where it is stored: several places may turn the same one.

    What a translation model encodes, its steps read under another name.
    """
    node = reads.get(name)
    return node.input[0] if node is not None and node.op_type == "Transpose" else name.removeprefix("source_")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those in branches included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _kind(node: onnx.NodeProto, stored: Mapping[str, int], reads: Mapping[str, onnx.NodeProto]) -> bool | None:
    """True: a product with a small weight, False: with one of float32, None: something else."""
    if node.op_type in INT8_PRODUCTS:
        return True
    if node.op_type not in PRODUCTS:
        return None
    if node.input[1] in stored:
        return bool(stored[node.input[1]] == onnx.TensorProto.FLOAT16)
    source = reads.get(node.input[1])
    if source is None or source.op_type != "DequantizeLinear":
        return None
    return True if stored.get(source.input[0]) in INT8 else None


def bytes_by_part(graph: onnx.GraphProto, places: Places = PLACES) -> dict[str, int]:
    """Bytes of the stored weights, by the part of the model that they belong to."""
    sizes: Counter[str] = Counter()
    for value in graph.initializer:
        sizes[_part(value.name, places)] += _bytes(value)
    return {part: sizes[part] for part in (*(name for name, _ in places), "rest")}


def _part(name: str, places: Places) -> str:
    """Which part a weight belongs to, after its name."""
    return next((part for part, hints in places if any(hint in name for hint in hints)), "rest")


def _bytes(value: onnx.TensorProto) -> int:
    """What a tensor takes; the elements of all types that are stored here are whole bytes."""
    width = onnx.helper.tensor_dtype_to_np_dtype(value.data_type).itemsize
    elements = 1
    for size in value.dims:
        elements *= size
    return int(width * elements)
