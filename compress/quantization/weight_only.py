"""Weights in 8 or 4 bits: `MatMulNBits`, with a scale for each block of a weight's inputs.

An activation is rounded to 8 bits within the same blocks, each by its own range: little is lost, and no range depends
on what else is in the batch. Embedding tables have 8 bits either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.quantization.operators import LEAST_OPSET, MICROSOFT, Int8
from distill.errors import BundleError
from export.encoder.build import build_classifier
from export.graphs.operators import FLOAT
from export.graphs.plan import has_plan, read_plan
from export.graphs.writer import opset_of
from export.seq2seq.build import build

BLOCKS = {8: 128, 4: 32}  # inputs that share a scale: fewer where there are fewer bits
ACCURACY_LEVEL = 4  # int8 products; the default, float ones, takes up to 100 times as long (docs/benchmarks.md)


def weight_only(model: onnx.ModelProto, bits: int, left_float: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """The form of a graph whose weights have `bits` bits, but for those of products that are `left_float`.

    Raises:
        BundleError: the graph was traced.
    """
    if not has_plan(model):
        raise BundleError("this needs a graph that was built from weights, and this one was traced: take dynamic")
    plan, weights = read_plan(model)
    write = build if plan.decoder_heads else build_classifier
    return write(
        plan, weights, max(opset_of(model), LEAST_OPSET), partial(WeightOnly, bits=bits, left_float=left_float)
    )


@dataclass(frozen=True)
class WeightOnly(Int8):
    """Products with weights of `bits` bits."""

    bits: int = 8

    def multiply(self, states: str, name: str) -> str:
        """States times a weight, plus its bias."""
        if name in self.left_float:
            return super().multiply(states, name)
        stored = f"{name}.weight"
        outputs, inputs = self.write.weights[stored].shape[::-1]
        bias = f"{name}.bias"
        found = self.write.weight(bias) if bias in self.write.weights else ""
        matrix = self._blocks(stored, self.write.weights[stored].T, self.bits)
        return self._times(self.smoothed(states, name), matrix, found, (inputs, outputs), self.bits)

    def embed(self, ids: str, table: str) -> str:
        """Scaled rows of an embedding table; that of the output matrix is stored in its blocks."""
        if table != self.plan.output_table or self._is_float(table):
            return super().embed(ids, table)
        write, width = self.write, self.write.weights[table].shape[1]
        matrix = self._blocks(table, write.weights[table], 8)
        whole = write.node("Cast", write.node("Gather", matrix, ids), to=FLOAT)
        scale = write.node("Unsqueeze", write.node("Gather", f"{table}.scale", ids), write.whole(-1))
        rows = write.node("Mul", write.node("Sub", whole, write.real(2**7)), scale)
        flat = write.node("Reshape", rows, write.whole(0, 0, -1))
        kept = write.node("Slice", flat, write.whole(0), write.whole(width), write.whole(2))
        return write.node("Mul", kept, write.real(self.plan.embedding_scale))

    @property
    def output_parts(self) -> dict[str, int]:
        """The matrix is in blocks of bytes."""
        if self._is_float(self.plan.output_table):
            return super().output_parts
        return super().output_parts | {"matrix": onnx.TensorProto.UINT8}

    def output(self, words: str = "") -> list[str]:
        """The embedding matrix in blocks. Some `words` alone would need another size of product at each run."""
        assert not words, "weights alone and a shortlist do not go together"
        if self._is_float(self.plan.output_table):
            return super().output()
        table = self.plan.output_table
        bias = [self.write.weight("output.bias")] if "bias" in self.output_parts else []
        return [self._blocks(table, self.write.weights[table], 8), *bias]

    def logits(self, states: str, output: list[str]) -> str:
        """Logits from the matrix in blocks."""
        if self._is_float(self.plan.output_table):
            return super().logits(states, output)
        matrix, *bias = output
        outputs, inputs = self.write.weights[self.plan.output_table].shape
        return self._times(states, matrix, bias[0] if bias else "", (inputs, outputs), 8)

    def _times(self, states: str, matrix: str, bias: str, shape: tuple[int, int], bits: int) -> str:
        """One product with a matrix of `shape` (inputs, outputs)."""
        inputs = [states, matrix, f"{matrix}.scale"] + (["", "", bias] if bias else [])
        sizes = {"K": shape[0], "N": shape[1], "bits": bits, "block_size": BLOCKS[bits]}
        return self.write.node("MatMulNBits", *inputs, domain=MICROSOFT, accuracy_level=ACCURACY_LEVEL, **sizes)

    def _blocks(self, name: str, rows: NDArray[np.float32], bits: int) -> str:
        """Store a weight `(outputs, inputs)` in blocks."""
        if name not in self.write.stored:
            numbers, scales = blocks(rows, bits)
            self.write.store(name, numbers)
            self.write.store(f"{name}.scale", scales)
        return name


def blocks(rows: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Whole numbers `(outputs, blocks, bytes)` around the middle of their range, and scales `(outputs, blocks)`.

    Of two 4-bit numbers in a byte the first is the lower half. The last block is filled up with zeros.
    """
    size, most = BLOCKS[bits], 2 ** (bits - 1) - 1
    outputs, inputs = rows.shape
    filled = np.pad(rows, ((0, 0), (0, -inputs % size))).reshape(outputs, -1, size)
    steps = np.abs(filled).max(-1, keepdims=True) / np.float32(most)
    scales = np.where(steps > 0, steps, 1).astype(np.float32)
    numbers = (np.clip(np.rint(filled / scales), -most, most) + most + 1).astype(np.uint8)
    if bits == 4:
        numbers = numbers[..., ::2] | numbers[..., 1::2] << 4
    return numbers, scales[..., 0]
