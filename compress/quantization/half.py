"""Float16, in which GPUs are fastest: a graph written anew from its plan, with float32 where float16 overflows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from compress.quantization.operators import LEAST_OPSET, Fused
from distill.errors import BundleError
from export.bundle import Bundle
from export.encoder.build import build_classifier
from export.graphs.operators import FLOAT
from export.graphs.plan import LOWEST, Plan, Weights, has_plan, read_plan
from export.graphs.writer import opset_of
from export.runtime import Translator, load
from export.seq2seq.build import build
from export.steps import engine_of
from export.texts import Text

LOG = logging.getLogger("potstill")
NARROW, WIDE = ("MatMul", "Gemm", "Sum", "Add", "Mul"), ("MatMul", "Gemm", "Mul")
"""What is float16 in each form, and may overflow."""
KEEPING = ("LayerNormalization", "Gelu", "Relu", "Reshape", "Transpose", "Split", "Gather", "Div", "MultiHeadAttention")
"""What else makes float32 of float32, as far as it leads to the others."""
FLOAT16 = onnx.TensorProto.FLOAT16
JOINING = (".attention.out", ".cross.out", ".down", "embedding.projection")  # products whose result is added to states
UNNARROWED = ("norm", ".down.", "positions", "types")  # weights that meet states themselves


@dataclass(frozen=True)
class Half(Fused):
    """Float16. Logits are float32, and so are T5's norms, which square their input.

    With `wide` the states between the layers are float32, and so are the second products of feed-forwards, for models
    that leave float16's range there, as T5 is known to.
    """

    real_type: int = FLOAT16
    tells_padding: bool = False  # the choice would wait for the GPU
    selects: bool = True  # there, where the past lies
    wide: bool = False

    def product(self, states: str, name: str) -> str:
        """States times a weight; what is added to states afterwards has their type."""
        if self.wide:
            kind = FLOAT if name.endswith(".down") else FLOAT16
            found = super().product(self._cast(states, kind), name)
            return self._cast(found, FLOAT) if name.endswith((*JOINING, "head.out")) else found
        found = super().product(states, name)
        return self._cast(found, FLOAT) if name == "head.out" else found

    def embed(self, ids: str, table: str) -> str:
        """Scaled rows of an embedding table."""
        rows = self._cast(self.write.node("Gather", self.write.weight(table), ids), FLOAT)
        scale = self.plan.embedding_scale
        return self._states(rows if scale == 1 else self.write.node("Mul", rows, self.write.real(scale)))

    def norm(self, states: str, name: str) -> str:
        """Layer norm in the type of states; T5's in float32."""
        if not self.plan.root_norm:
            return super().norm(states, name)
        return self._states(super().norm(self._cast(states, FLOAT), name))

    def logits(self, states: str, output: list[str]) -> str:
        """Logits as float32."""
        return self._cast(super().logits(self._cast(states, FLOAT16), output), FLOAT)

    def _states(self, value: str) -> str:
        """Float32 in the type of states."""
        return value if self.wide else self._cast(value, FLOAT16)

    def _cast(self, value: str, kind: int) -> str:
        """A value in another type; onnxruntime removes what changes nothing."""
        return self.write.node("Cast", value, to=kind)


def half(model: onnx.ModelProto, bundle: Bundle, texts: Sequence[Text]) -> onnx.ModelProto:
    """The float16 form of an fp32 bundle's graph; with float32 states where it cannot answer `texts` otherwise.

    Raises:
        BundleError: the graph was traced, a weight is beyond float16, or neither form answers with numbers.
    """
    if not has_plan(model):
        raise BundleError("fp16 needs a graph that was built from weights, and this one was traced: keep it fp32")
    plan, weights = read_plan(model)
    opset = max(opset_of(model), LEAST_OPSET)
    write = build if plan.decoder_heads else build_classifier
    for wide in (False, True):
        small = narrowed(plan, weights, wide)
        if _answers(overflowing(write(plan, weights, opset, Fused), wide), bundle, texts):
            return write(plan, small, opset, partial(Half, wide=wide))
    raise BundleError("this model leaves the range of fp16, with fp32 between its layers, too: keep it fp32")


def overflowing(model: onnx.ModelProto, wide: bool) -> onnx.ModelProto:
    """A float32 graph whose products, and sums if they are not `wide`, are rounded to float16 as on a GPU.

    On a CPU onnxruntime computes float16 operators in float32 and rounds nothing between them, so that a float16 graph
    overflows on no CPU.
    """
    real = {value.name for value in model.graph.initializer if value.data_type == FLOAT and len(value.dims)}
    _round(model.graph, WIDE if wide else NARROW, real)
    return model


def _round(graph: onnx.GraphProto, kinds: Collection[str], real: set[str]) -> None:
    """Round what these kinds of nodes make of float32; `real` are the values that are known to be that."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _round(attribute.g, kinds, set(real))
        if node.op_type not in (*NARROW, *KEEPING) or not real & set(node.input):
            continue
        real |= set(node.output)
        if node.op_type in kinds and not (kinds is WIDE and any(".down." in name for name in node.input)):
            name, exact = node.output[0], f"{node.output[0]}/exact"
            node.output[0] = exact
            nodes.append(helper.make_node("Cast", [exact], [f"{exact}/half"], to=FLOAT16))
            nodes.append(helper.make_node("Cast", [f"{exact}/half"], [name], to=FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)


def _answers(graph: onnx.ModelProto, bundle: Bundle, texts: Sequence[Text]) -> bool:
    """Whether a graph answers with numbers in the place of a bundle's own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    model = load(bundle.folder, threads=1)
    try:
        if isinstance(model, Translator):
            replace(model, engine=engine_of(session, model.limits.rows))(cast(Sequence[str], texts))
        else:
            replace(model, session=replace(model.session, onnx=session))(texts)
    except BundleError as error:
        LOG.info("fp16: %s", error)
        return False
    return True


def narrowed(plan: Plan, weights: Weights, wide: bool) -> Weights:
    """The weights as `Half` wants them; numbers that a graph has beside them are not weights.

    Raises:
        BundleError: naming those that are too large for float16.
    """
    kept = ("real.", *(UNNARROWED if wide else ("norm",) if plan.root_norm else ()))
    found = {
        name: array if array.dtype != np.float32 or any(part in name for part in kept) else _float16(array)
        for name, array in weights.items()
    }
    beyond = [name for name, array in found.items() if not np.isfinite(array).all()]
    if beyond:
        raise BundleError("the model has weights beyond float16 (65,504): keep it float32", beyond)
    return found


def _float16(array: NDArray[Any]) -> NDArray[np.float16]:
    """The nearest float16 values; infinity for what is beyond them, unless it stands for what is never seen."""
    with np.errstate(over="ignore"):
        return np.where(array == LOWEST, np.finfo(np.float16).min, array).astype(np.float16)
