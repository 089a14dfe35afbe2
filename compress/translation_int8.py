"""The int8 form of a translation graph: int8 products with stored weights, one int8 embedding matrix for all uses.

The graph is written anew from its plan, in onnxruntime's own operators. Each activation gets its range while the model
runs; weights have 7 bits (`compress.int8.REDUCE_RANGE` says why) and a scale for each output channel, the embedding
matrix one for each row of the vocabulary. Biases, norms and attention's products of two activations stay float.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.folder import seal_int8, write_parts
from compress.products import TRANSLATION_PLACES, bytes_by_part, count_products
from distill.files import new_folder
from export.bundle import Bundle, read_bundle
from export.seq2seq.build import build
from export.seq2seq.operators import SWISH, Standard
from export.seq2seq.plan import read_plan

MICROSOFT = "com.microsoft"
MOST = 64  # 7 bits: the sum of two products with 8-bit activations stays within 16 bits

Array = NDArray[np.float32]


def write_int8(bundle: Bundle, target: Path) -> Bundle:
    """Write the int8 form of an fp32 translation bundle as the bundle `target`. What it lost is for a gate to judge.

    Raises:
        BundleError: the bundle holds another kind of graph.
        RunError: `target` exists.
    """
    before = onnx.load(bundle.model_path)
    after = quantize_translation(before)
    sizes = {name: bytes_by_part(m.graph, TRANSLATION_PLACES) for name, m in (("fp32", before), ("int8", after))}
    found = {"method": "dynamic", "products": str(count_products(after.graph)), "bytes": sizes}
    with new_folder(target) as folder:
        write_parts(folder, bundle, after)
        seal_int8(folder, bundle, "dynamic", {**bundle.details, "quantization": found})
    return read_bundle(target, verify=False)


def quantize_translation(model: onnx.ModelProto) -> onnx.ModelProto:
    """The int8 form of a graph that `export.seq2seq.build` wrote.

    Raises:
        BundleError: another graph.
    """
    plan, weights = read_plan(model)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    return build(plan, weights, opset, Int8)


@dataclass(frozen=True)
class Fused(Standard):
    """Float32, with attention in one node."""

    domains: tuple[tuple[str, int], ...] = ((MICROSOFT, 1),)

    def activation(self, states: str) -> str:
        """What stands between the two products of a feed-forward; swish in one node."""
        if self.plan.activation in SWISH:
            return self.write.node("QuickGelu", states, domain=MICROSOFT, alpha=1.0)
        return super().activation(states)

    def padding(self, mask: str) -> str:
        """The mask `(sentences, source)` as the attention node wants it."""
        return self.write.node("Cast", mask, to=onnx.TensorProto.INT32)

    def past_only(self, positions: str) -> str:
        """Nothing: the attention node itself keeps positions from seeing later ones."""
        return ""

    def encoder_attention(self, projected: list[str], heads: int, padding: str, bias: str) -> str:
        """Attention of the source to itself."""
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
    """Int8 products and tables."""

    def product(self, states: str, name: str) -> str:
        """States times an int8 weight, plus its bias."""
        weight = self._stored(f"{name}.weight", axis=0)
        bias = f"{name}.bias"
        found = self.write.weight(bias) if bias in self.write.weights else ""
        return self._multiply(states, weight, f"{name}.weight.scale", found)

    def embed(self, ids: str, table: str) -> str:
        """Int8 rows, scaled by what their row was divided by and by what embeddings are scaled by."""
        node = self.write.node
        rows = node("Cast", node("Gather", self._stored(table, axis=1), ids), to=onnx.TensorProto.FLOAT)
        scales = self._scales(table)[:, None] * np.float32(self.plan.embedding_scale)
        return node("Mul", rows, node("Gather", self.write.store(f"{table}.row_scale", scales), ids))

    def logits(self, states: str) -> str:
        """Logits from the int8 embedding matrix; onnxruntime turns it once, when it opens the model."""
        table = self.plan.output_table
        turned = self.write.node("Transpose", self._stored(table, axis=1), perm=[1, 0])
        bias = self.write.weight("output.bias") if "output.bias" in self.write.weights else ""
        return self._multiply(states, turned, f"{table}.scale", bias)

    def _multiply(self, states: str, weight: str, scale: str, bias: str) -> str:
        """One int8 product, its activations quantized as they come."""
        inputs = [states, weight, scale] + (["", bias] if bias else [])
        return self.write.node("DynamicQuantizeMatMul", *inputs, domain=MICROSOFT)

    def _stored(self, name: str, axis: int) -> str:
        """Store a weight as int8, with one scale for all numbers along `axis`; a weight of zeros has scale 1."""
        if name not in self.write.stored:
            weight = self.write.weights[name]
            highest = np.abs(weight).max(axis, keepdims=True)
            scale = np.where(highest > 0, highest / MOST, 1).astype(np.float32)
            self.write.store(name, np.clip(np.rint(weight / scale), -MOST, MOST).astype(np.int8))
            self.write.store(f"{name}.scale", scale.reshape(-1))
        return name

    def _scales(self, name: str) -> Array:
        """The scales that a weight was stored with."""
        return self.write.stored[f"{name}.scale"]
