"""The parts of a model in standard ONNX operators. Other operators for the same parts: subclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from export.graphs.plan import LOWEST, Plan
from export.graphs.writer import Writer

ACTIVATIONS = {
    "relu": ("Relu", {}),
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "tanh": ("Tanh", {}),
}
SWISH = ("silu", "swish")
FLOAT = onnx.TensorProto.FLOAT
KNOWN_ACTIVATIONS = (*ACTIVATIONS, *SWISH)


@dataclass(frozen=True)
class Standard:
    """Float32 and the operators of the ONNX standard."""

    plan: Plan
    write: Writer

    domains: tuple[tuple[str, int], ...] = ()
    tells_padding: bool = False  # whether attention without a mask is worth a way of its own
    real_type: int = FLOAT  # of states, keys and values
    selects: bool = False  # whether a step itself picks the rows of the past that go on

    # --- products and tables ---

    def product(self, states: str, name: str) -> str:
        """States `(…, in)` times the map `name`: its weight, or its two factors one after the other."""
        if f"{name}.second.weight" not in self.write.weights:
            return self.multiply(states, name)
        return self.multiply(self.multiply(states, f"{name}.first"), f"{name}.second")

    def multiply(self, states: str, name: str) -> str:
        """States `(…, in)` times the weight `name` `(in, out)`, plus its bias if it has one."""
        found = self.write.node("MatMul", self.smoothed(states, name), self.write.weight(f"{name}.weight"))
        bias = f"{name}.bias"
        return self.write.node("Add", found, self.write.weight(bias)) if bias in self.write.weights else found

    def smoothed(self, states: str, name: str) -> str:
        """States with the channels made smaller that the weight has taken over (`compress.quantization.smooth`)."""
        factor = f"{name}.smoothing"
        return self.write.node("Mul", states, self.write.weight(factor)) if factor in self.write.weights else states

    def embed(self, ids: str, table: str) -> str:
        """Scaled rows `(batch, length, width)` of an embedding table."""
        rows = self.write.node("Gather", self.write.weight(table), ids)
        scale = self.plan.embedding_scale
        return rows if scale == 1 else self.write.node("Mul", rows, self.write.real(scale))

    @property
    def output_parts(self) -> dict[str, int]:
        """What `output` is made of, by name, and the types of these tensors."""
        bias = {"bias": self.real_type} if "output.bias" in self.write.weights else {}
        return {"matrix": self.real_type} | bias

    def output(self, words: str = "") -> list[str]:
        """What makes logits of states, `output_parts`; of some `words` alone where they are given.

        The matrix is stored as the embedding is.
        """
        parts = [self.write.weight(self.plan.output_table)]
        if "bias" in self.output_parts:
            parts.append(self.write.weight("output.bias"))
        return [self.write.node("Gather", part, words) for part in parts] if words else parts

    def logits(self, states: str, output: list[str]) -> str:
        """Logits `(rows, words)` of states `(rows, width)`."""
        return self.write.node("Gemm", states, *output, transB=1)

    # --- norms and activations ---

    def add_and_norm(self, states: str, change: str, name: str) -> str:
        """The norm of a sum. Written as `Sum`, because onnxruntime fuses `Add` with the norm into a slower kernel."""
        return self.norm(self.write.node("Sum", states, change), name)

    def norm(self, states: str, name: str) -> str:
        """Layer norm, or T5's norm by the root of the mean square."""
        weight = self.write.weight(f"{name}.weight")
        if not self.plan.root_norm:
            bias = self.write.weight(f"{name}.bias")
            return self.write.node("LayerNormalization", states, weight, bias, axis=-1, epsilon=self.plan.epsilon)
        node = self.write.node
        square = node("ReduceMean", node("Pow", states, self.write.real(2)), self.write.whole(-1), keepdims=1)
        root = node("Sqrt", node("Add", square, self.write.real(self.plan.epsilon)))
        return node("Mul", node("Div", states, root), weight)

    def activation(self, states: str, name: str) -> str:
        """An activation function by the name that configurations have for it."""
        if name in SWISH:
            return self.write.node("Mul", states, self.write.node("Sigmoid", states))
        kind, attributes = ACTIVATIONS[name]
        return self.write.node(kind, states, **attributes)

    # --- attention ---

    def padding(self, mask: str) -> str:
        """What attention to the source wants of the mask `(sentences, source)`: here 0 or the lowest float, added."""
        flags = self.write.node(
            "Cast", self.write.node("Unsqueeze", mask, self.write.whole(1, 2)), to=onnx.TensorProto.BOOL
        )
        return self.write.node("Where", flags, self.write.real(0), self.write.real(LOWEST))

    def past_only(self, positions: str) -> str:
        """What keeps a position from seeing later ones, `(length, past + length)`: 0 or the lowest float."""
        table = self.write.store("decoder.causal", np.array([LOWEST, 0], np.float32))
        return self.write.node(
            "Gather", table, distances(self.write, positions, key_positions(self.write, positions), -1, 0)
        )

    def relative(self, queries: str, keys: str, table: str, low: int) -> str:
        """Relative position bias `(1, heads, queries, keys)` from a table `(distances, heads)` that begins at `low`."""
        rows = distances(self.write, queries, keys, low, self.plan.reach)
        bias = self.write.node("Gather", self.write.weight(table), rows)
        return self.write.node("Unsqueeze", self.write.node("Transpose", bias, perm=[2, 0, 1]), self.write.whole(0))

    def encoder_attention(self, projected: list[str], heads: int, padding: str, bias: str) -> str:
        """Attention of the source to itself: queries, keys and values `(batch, length, heads * size)` in, such out."""
        queries, keys, values = (self.split(part, heads) for part in projected)
        mask = self.write.node("Add", padding, bias) if bias else padding
        return self.merge(self.attend(queries, keys, values, mask))

    def self_attention(
        self, projected: list[str], heads: int, past: tuple[str, str], bias: str
    ) -> tuple[str, str, str]:
        """Attention of the target to itself and its past; also returns all keys and values, split by head."""
        queries, keys, values = (self.split(part, heads) for part in projected)
        keys = self.write.node("Concat", past[0], keys, axis=2)
        values = self.write.node("Concat", past[1], values, axis=2)
        return self.merge(self.attend(queries, keys, values, bias)), keys, values

    def cross_attention(self, queries: str, heads: int, source: tuple[str, str], padding: str) -> str:
        """Attention of the target to the source's keys and values `(sentences, heads, source, size)`."""
        return self.merge(self.attend(self.split(queries, heads), *source, padding))

    def split(self, states: str, heads: int) -> str:
        """`(batch, length, heads * size)` to `(batch, heads, length, size)`."""
        apart = self.write.node("Reshape", states, self.write.whole(0, 0, heads, -1))
        return self.write.node("Transpose", apart, perm=[0, 2, 1, 3])

    def merge(self, states: str) -> str:
        """`(batch, heads, length, size)` to `(batch, length, heads * size)`."""
        return self.write.node(
            "Reshape", self.write.node("Transpose", states, perm=[0, 2, 1, 3]), self.write.whole(0, 0, -1)
        )

    def attend(self, queries: str, keys: str, values: str, mask: str) -> str:
        """Scaled dot-product attention; the scale is already in the queries' weight."""
        scores = self.write.node("MatMul", queries, self.write.node("Transpose", keys, perm=[0, 1, 3, 2]))
        masked = self.write.node("Add", scores, mask) if mask else scores
        return self.write.node("MatMul", self.write.node("Softmax", masked, axis=-1), values)


Operators = Callable[[Plan, Writer], Standard]
"""What writes the parts of a plan."""


def key_positions(write: Writer, positions: str) -> str:
    """0 to the last of `positions`: where the keys of past and present stand."""
    last = write.node("Gather", positions, write.scalar(-1))
    return write.node("Range", write.scalar(0), write.node("Add", last, write.scalar(1)), write.scalar(1))


def distances(write: Writer, queries: str, keys: str, low: int, high: int) -> str:
    """How far each query stands behind each key `(queries, keys)`, cut to `low`..`high` and counted from 0."""
    apart = write.node("Sub", write.node("Unsqueeze", queries, write.whole(1)), keys)
    return write.node("Sub", write.node("Clip", apart, write.scalar(low), write.scalar(high)), write.scalar(low))
