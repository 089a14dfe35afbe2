"""onnxruntime's own operators for the parts of a graph: attention in one node, and products in int8.

Each activation gets its range while the model runs; weights have 7 bits (`int8.REDUCE_RANGE` says why) and a scale for
each output channel, an embedding matrix one for each row of the vocabulary. Biases, norms and attention's products of
two activations stay float.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graphs.operators import FLOAT, SWISH, Standard

MICROSOFT = "com.microsoft"
MOST = 64  # 7 bits: the sum of two products with 8-bit activations stays within 16 bits
LARGEST = 127
LEAST_OPSET = 23  # of the standard's attention
OUTPUT = "output"
"""What the product with the output matrix is called, which is a table of embeddings too, and named like one."""


@dataclass(frozen=True)
class Fused(Standard):
    """Float32, with attention in one node."""

    domains: tuple[tuple[str, int], ...] = ((MICROSOFT, 1),)
    tells_padding: bool = True

    def activation(self, states: str, name: str) -> str:
        """An activation function; swish in one node."""
        if name in SWISH:
            return self.write.node("QuickGelu", states, domain=MICROSOFT, alpha=1.0)
        return super().activation(states, name)

    def padding(self, mask: str) -> str:
        """The mask `(sentences, source)` as the attention node wants it."""
        return self.write.node("Cast", mask, to=onnx.TensorProto.INT32)

    def past_only(self, positions: str) -> str:
        """Nothing: the attention node itself keeps positions from seeing later ones."""
        return ""

    def encoder_attention(self, projected: list[str], heads: int, padding: str, bias: str) -> str:
        """Attention of the source to itself; without a mask the standard's own node is the faster one."""
        if not padding and not bias:
            return self.write.node("Attention", *projected, q_num_heads=heads, kv_num_heads=heads, scale=1.0)
        return self._attend([*projected, "", padding, bias], heads)[0]

    def self_attention(
        self, projected: list[str], heads: int, past: tuple[str, str], bias: str
    ) -> tuple[str, str, str]:
        """Attention of the target to itself and its past."""
        found, keys, values = self._attend([*projected, "", "", bias, *past], heads, outputs=3, unidirectional=1)
        return found, keys, values

    def cross_attention(self, queries: str, heads: int, source: tuple[str, str], padding: str) -> str:
        """Attention of the target to the source."""
        return self._attend([queries, *source, "", padding], heads)[0]

    def _attend(self, inputs: list[str], heads: int, outputs: int = 1, unidirectional: int = 0) -> list[str]:
        """One attention node; the scale is already in the queries' weight."""
        while not inputs[-1]:
            inputs.pop()
        return self.write.nodes_of(
            "MultiHeadAttention", *inputs, outputs=outputs, domain=MICROSOFT,
            num_heads=heads, scale=1.0, unidirectional=unidirectional,
        )  # fmt: skip


@dataclass(frozen=True)
class Int8(Fused):
    """Int8 products and tables, but for the products that are `left_float`."""

    left_float: frozenset[str] = frozenset()

    def activation(self, states: str, name: str) -> str:
        """An activation function; Gelu by its tanh form, 0.0005 away at most, which int8 does not see."""
        if name == "gelu":
            return self.write.node("FastGelu", states, domain=MICROSOFT)
        return super().activation(states, name)

    def multiply(self, states: str, name: str) -> str:
        """States times an int8 weight, plus its bias."""
        if name in self.left_float:
            return super().multiply(states, name)
        weight = self._stored(f"{name}.weight", axis=0)
        bias = f"{name}.bias"
        found = self.write.weight(bias) if bias in self.write.weights else ""
        return self._multiply(self.smoothed(states, name), weight, f"{name}.weight.scale", found)

    def embed(self, ids: str, table: str) -> str:
        """Int8 rows, times their scales and that of embeddings.

        A table that is the output matrix too is stored as that wants it, a scale a row. Any other has one a column.
        """
        if self._is_float(table):
            return super().embed(ids, table)
        if table == self.plan.output_table:
            rows = self._rows(self._stored(table, axis=1), ids)
            scales = self.write.stored[f"{table}.scale"][:, None] * np.float32(self.plan.embedding_scale)
            scale = self.write.node("Gather", self.write.store(f"{table}.row_scale", scales), ids)
        else:
            numbers, scales = rounded(self.write.weights[table], 0, LARGEST)
            rows = self._rows(self.write.store(table, numbers), ids)
            scale = self.write.store(f"{table}.scale", scales * np.float32(self.plan.embedding_scale))
        return self.write.node("Mul", rows, scale)

    def _rows(self, table: str, ids: str) -> str:
        """Rows of an int8 table as floats."""
        return self.write.node("Cast", self.write.node("Gather", table, ids), to=onnx.TensorProto.FLOAT)

    @property
    def output_parts(self) -> dict[str, int]:
        """The matrix is int8, and there are its scales."""
        if self._is_float(self.plan.output_table):
            return super().output_parts
        bias = {name: kind for name, kind in super().output_parts.items() if name == "bias"}
        return {"matrix": onnx.TensorProto.INT8, "scale": FLOAT} | bias

    def output(self, words: str = "") -> list[str]:
        """The int8 embedding matrix, turned; onnxruntime turns the whole one once, when it opens the model."""
        if self._is_float(self.plan.output_table):
            return super().output(words)
        table = self._stored(self.plan.output_table, axis=1)
        bias = [self.write.weight("output.bias")] if "bias" in self.output_parts else []
        parts = [table, f"{table}.scale", *bias]
        rows, *rest = [self.write.node("Gather", part, words) for part in parts] if words else parts
        return [self.write.node("Transpose", rows, perm=[1, 0]), *rest]

    def logits(self, states: str, output: list[str]) -> str:
        """Logits from the int8 matrix."""
        if self._is_float(self.plan.output_table):
            return super().logits(states, output)
        matrix, scale, *bias = output
        return self._multiply(states, matrix, scale, bias[0] if bias else "")

    def _is_float(self, table: str) -> bool:
        """Whether a table is left float, being the matrix of an output that is."""
        return OUTPUT in self.left_float and table == self.plan.output_table

    def _multiply(self, states: str, weight: str, scale: str, bias: str) -> str:
        """One int8 product, its activations quantized as they come."""
        inputs = [states, weight, scale] + (["", bias] if bias else [])
        return self.write.node("DynamicQuantizeMatMul", *inputs, domain=MICROSOFT)

    def _stored(self, name: str, axis: int) -> str:
        """Store a weight of products as int8, with one scale for all numbers along `axis`."""
        if name not in self.write.stored:
            numbers, scales = rounded(self.write.weights[name], axis, MOST)
            self.write.store(name, numbers)
            self.write.store(f"{name}.scale", scales)
        return name


def rounded(weight: NDArray[np.float32], axis: int, most: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers up to `most`, and the scale of all numbers along `axis`; that of zeros is 1."""
    highest = np.abs(weight).max(axis, keepdims=True)
    scale = np.where(highest > 0, highest / most, 1).astype(np.float32)
    return np.clip(np.rint(weight / scale), -most, most).astype(np.int8), scale.reshape(-1)
