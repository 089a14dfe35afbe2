"""Graphs of classifiers that are built from weights, in each set of operators."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper
from tiny_models import KINDS, LABELS, VOCABULARY, tiny_batch, tiny_model
from torch import nn

from compress.quantization import int8
from compress.quantization.operators import LARGEST, LEAST_OPSET, Fused, rounded
from compress.quantization.products import count_products
from compress.quantization.smooth import smooth
from distill.layers import layers
from export.encoder.build import build_classifier
from export.encoder.weights import read_classifier
from export.graph import to_onnx, written_by
from export.graphs.operators import KNOWN_ACTIVATIONS
from export.graphs.plan import Plan, Weights, has_plan, read_plan


def logits(graph: onnx.ModelProto, batch: dict[str, torch.Tensor]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    ids = batch["input_ids"].numpy()
    known = {"input_ids": ids, "attention_mask": batch["attention_mask"].numpy(), "token_type_ids": np.zeros_like(ids)}
    return np.asarray(session.run(None, {each.name: known[each.name] for each in session.get_inputs()})[0])


def torch_logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> Any:
    with torch.inference_mode():
        return model(**batch).logits.numpy()


def fused(plan: Plan, weights: Weights) -> onnx.ModelProto:
    return build_classifier(plan, weights, LEAST_OPSET, Fused)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_operators_answer_like_torch(kind: str) -> None:
    model, batch = tiny_model(kind), tiny_batch(5, 9)
    even = {"input_ids": batch["input_ids"], "attention_mask": torch.ones_like(batch["attention_mask"])}
    for each in (batch, even, {name: value[:1] for name, value in even.items()}):
        np.testing.assert_allclose(logits(fused(*read_classifier(model)), each), torch_logits(model, each), atol=1e-4)


def test_without_padding_there_is_no_mask() -> None:
    way = next(node for node in fused(*read_classifier(tiny_model("bert"))).graph.node if node.op_type == "If")
    written = {each.name: Counter(node.op_type for node in each.g.node) for each in way.attribute}
    assert written["then_branch"]["Attention"] == written["else_branch"]["MultiHeadAttention"] == 4
    assert written["then_branch"]["MultiHeadAttention"] == written["else_branch"]["Attention"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_int8_is_close(kind: str) -> None:
    model, batch = tiny_model(kind), tiny_batch(16, 20)
    graph = int8.dynamic(to_onnx(model, 20))
    assert str(count_products(graph.graph)).startswith(f"{20 if kind == 'electra' else 19} of")
    found, wanted = logits(graph, batch), torch_logits(model, batch)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.98


def test_layers_of_different_sizes() -> None:
    model, batch = tiny_model("bert", layers=2), tiny_batch()
    first, second = layers(model)
    first.keep({"heads": [0, 2, 3], "neurons": range(20)})
    second.keep({"heads": [1], "neurons": range(7)})
    for build in (to_onnx(model, 20), fused(*read_classifier(model))):
        np.testing.assert_allclose(logits(build, batch), torch_logits(model, batch), atol=1e-4)


@pytest.mark.parametrize("activation", KNOWN_ACTIVATIONS)
def test_activations(activation: str) -> None:
    model, batch = tiny_model("bert", layers=1), tiny_batch()
    changed = type(model)(type(model.config)(**{**model.config.to_dict(), "hidden_act": activation})).eval()  # type: ignore[operator, union-attr]
    changed.load_state_dict(model.state_dict())
    for graph in (to_onnx(changed, 20), fused(*read_classifier(changed))):
        np.testing.assert_allclose(logits(graph, batch), torch_logits(changed, batch), atol=1e-4)


def test_what_cannot_be_built_is_traced_and_said() -> None:
    model, batch = tiny_model("bert", layers=1), tiny_batch()
    model.config.hidden_act = "gelu_fast"  # type: ignore[union-attr]
    changed = type(model)(model.config).eval()  # type: ignore[operator]
    changed.load_state_dict(model.state_dict())
    graph = to_onnx(changed, 20)
    assert not has_plan(graph)
    assert written_by(changed, 20) == "traced by torch (activation gelu_fast has no description): slower in int8"
    np.testing.assert_allclose(logits(graph, batch), torch_logits(changed, batch), atol=1e-4)
    assert logits(int8.dynamic(graph), batch).shape == (3, len(LABELS))


def test_smoothing_reaches_the_int8_graph() -> None:
    model, batch = tiny_model("bert", layers=2), tiny_batch(16, 20)
    with torch.no_grad():  # one channel stands out after each norm, and the weights that read it are small
        for layer in layers(model):
            layer.module.get_parameter("attention.output.LayerNorm.weight")[3] = 60
            layer.linear("up").weight[:, 3] /= 60
    graph, batches = to_onnx(model, 20), [{name: value.numpy() for name, value in batch.items()}]
    batches = [batch | {"token_type_ids": np.zeros_like(batch["input_ids"])} for batch in batches]
    smoothed = smooth(graph, batches)
    factors = {name for name in read_plan(smoothed)[1] if name.endswith(".smoothing")}
    assert "encoder.0.up.smoothing" in factors
    assert factors <= {value.name for value in int8.dynamic(smoothed).graph.initializer}
    again = fused(*read_plan(smoothed))
    np.testing.assert_allclose(logits(again, batch), torch_logits(model, batch), atol=1e-3)


def test_the_table_has_a_scale_a_column() -> None:
    model = tiny_model("bert", layers=1)
    stored = {value.name: numpy_helper.to_array(value) for value in int8.dynamic(to_onnx(model, 20)).graph.initializer}
    table = model.get_submodule("bert.embeddings.word_embeddings").weight.detach().numpy()  # type: ignore[operator]
    assert (stored["embedding.table"].dtype, stored["embedding.table"].shape) == (np.int8, (VOCABULARY, 16))
    np.testing.assert_allclose(stored["embedding.table.scale"], np.abs(table).max(0) / LARGEST, rtol=1e-6)


@pytest.mark.parametrize(
    ("axis", "numbers", "scales"),
    [(0, [[32, 64], [-64, 0]], [0.25 / 64, 1 / 64]), (1, [[8, 64], [-64, 0]], [1 / 64, 0.25 / 64])],
)
def test_rounded(axis: int, numbers: list[list[int]], scales: list[float]) -> None:
    found, scale = rounded(np.array([[0.125, 1], [-0.25, 0]], np.float32), axis, 64)
    np.testing.assert_array_equal(found, numbers)
    np.testing.assert_allclose(scale, scales, rtol=1e-6)


@given(arrays(np.float32, (4, 3), elements=st.floats(-1e3, 1e3, width=32)), st.sampled_from([64, 127]))
def test_rounding_is_half_a_step_at_most(weight: NDArray[np.float32], most: int) -> None:
    found, scale = rounded(weight, 0, most)
    assert np.abs(found.astype(int)).max() <= most
    assert (np.abs(found * scale - weight) <= scale * 0.5001).all()
