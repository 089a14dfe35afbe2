"""Graphs whose weights alone are small."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper
from test_encoder_graph import logits as classified
from test_encoder_graph import torch_logits as torch_classified
from test_translation_int8 import logits
from tiny_models import KINDS, tiny_batch, tiny_model
from translation_models import MODELS, tiny_translator

from compress.quantization.products import count_products
from compress.quantization.weight_only import BLOCKS, blocks, weight_only
from distill.errors import BundleError
from export.encoder.build import build_classifier
from export.encoder.weights import read_classifier
from export.graph import to_onnx
from export.graphs.plan import Weights
from export.seq2seq.build import build
from export.seq2seq.weights import read_model


def back(numbers: NDArray[np.uint8], scales: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """What the numbers stand for `(outputs, blocks * size)`."""
    if bits == 4:
        numbers = np.stack([numbers & 15, numbers >> 4], -1).reshape(*numbers.shape[:2], -1)
    whole = (numbers.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]
    return whole.reshape(len(whole), -1)


def rounded_weights(graph: onnx.ModelProto, weights: Weights, bits: int) -> Weights:
    """What the numbers of a graph stand for, in the place of the weights that they were made from."""
    stored = {value.name: numpy_helper.to_array(value) for value in graph.graph.initializer}
    found = dict(weights)
    for name, numbers in stored.items():
        if numbers.ndim == 3 and numbers.dtype == np.uint8:
            whole = back(numbers, stored[f"{name}.scale"], bits if name.endswith(".weight") else 8)
            turned = whole.T if name.endswith(".weight") else whole
            rows, columns = weights[name].shape
            found[name] = np.ascontiguousarray(turned[:rows, :columns])
        elif numbers.dtype == np.int8:
            found[name] = numbers * stored[f"{name}.scale"]
    return found


def in_float(graph: onnx.GraphProto) -> None:
    """Let products round weights alone, and no activations."""
    for node in graph.node:
        for attribute in list(node.attribute):
            if attribute.name == "accuracy_level":
                node.attribute.remove(attribute)
            elif attribute.HasField("g"):
                in_float(attribute.g)


@pytest.mark.parametrize("bits", BLOCKS)
@pytest.mark.parametrize("kind", KINDS)
def test_classifiers_answer_as_with_rounded_weights(kind: str, bits: int) -> None:
    model, batch = tiny_model(kind), tiny_batch(5, 9)
    graph = weight_only(to_onnx(model, 20), bits)
    in_float(graph.graph)
    plan, weights = read_classifier(model)
    rounded = build_classifier(plan, rounded_weights(graph, weights, bits), 20)
    np.testing.assert_allclose(classified(graph, batch), classified(rounded, batch), atol=2e-3)
    products = 20 if kind == "electra" else 19
    assert str(count_products(graph.graph)) == f"{products} of {products} products quantized"


@pytest.mark.parametrize("bits", BLOCKS)
@pytest.mark.parametrize("kind", MODELS)
def test_translation_models_answer_as_with_rounded_weights(kind: str, bits: int) -> None:
    model = tiny_translator(kind, **({"initializer_factor": 0.3} if "t5" in kind else {}))
    plan, weights = read_model(model, 40)
    graph = weight_only(build(plan, weights, 20), bits)
    in_float(graph.graph)
    rounded = build(plan, rounded_weights(graph, weights, bits), 20)
    np.testing.assert_allclose(logits(graph, model), logits(rounded, model), atol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_bits_are_close(kind: str) -> None:
    model, batch = tiny_model(kind), tiny_batch(16, 20)
    found, wanted = classified(weight_only(to_onnx(model, 20), 8), batch), torch_classified(model, batch)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99


def test_answers_do_not_depend_on_the_batch() -> None:
    model, batch = tiny_model("bert"), tiny_batch(8, 12)
    graph = weight_only(to_onnx(model, 20), 8)
    alone = [classified(graph, {name: value[[row]] for name, value in batch.items()}) for row in range(8)]
    np.testing.assert_allclose(classified(graph, batch), np.concatenate(alone), atol=1e-5)


@pytest.mark.parametrize("bits", BLOCKS)
def test_activations_are_rounded_within_blocks(bits: int) -> None:
    model, batch = tiny_model("bert"), tiny_batch(5, 9)
    graph = weight_only(to_onnx(model, 20), bits)
    found = classified(graph, batch)
    in_float(graph.graph)
    exact = classified(graph, batch)
    assert 1e-4 < np.abs(found - exact).max() < 0.1, "logits of about 2"


def test_a_block_by_hand() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :4] = [7, -7, 3.4, -1]
    numbers, scales = blocks(row, 4)
    assert scales.tolist() == [[1.0]]
    assert numbers[0, 0, :2].tolist() == [15 | 1 << 4, 11 | 7 << 4]
    assert numbers[0, 0, 2:].tolist() == [8 | 8 << 4] * 14


@given(
    arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 300)), elements=st.floats(-50, 50, width=32)),
    st.sampled_from(sorted(BLOCKS)),
)
def test_what_is_lost_is_half_a_step_at_most(rows: NDArray[np.float32], bits: int) -> None:
    numbers, scales = blocks(rows, bits)
    found = back(numbers, scales, bits)
    outputs, inputs = rows.shape
    assert numbers.shape == (outputs, -(-inputs // BLOCKS[bits]), BLOCKS[bits] * bits // 8)
    steps = scales.repeat(BLOCKS[bits], 1)
    assert (np.abs(found[:, :inputs] - rows) <= steps[:, :inputs] * 0.5001 + 1e-30).all()
    assert (found[:, inputs:] == 0).all()


def test_a_traced_graph_is_refused() -> None:
    graph = to_onnx(tiny_model("bert"), 20)
    del graph.metadata_props[:]
    with pytest.raises(BundleError, match="this one was traced"):
        weight_only(onnx.ModelProto.FromString(graph.SerializeToString()), 8)
