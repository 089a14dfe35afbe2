"""Int8's rounding while training: what products see, what gradients do, and that nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import nn

from distill.checkpoint import load_model
from distill.rounding import round_input, round_weight, rounded

BY_HAND = {
    "halves go to the even step": ([[64.0, 0.5, 1.5, -2.5]], [[64.0, 0.0, 2.0, -2.0]]),
    "each row has its own scale": ([[64.0, 0.4], [6.4, 0.04]], [[64.0, 0.0], [6.4, 0.0]]),
    "zeros": ([[0.0, 0.0]], [[0.0, 0.0]]),
}


@pytest.mark.parametrize(("weight", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_weights_by_hand(weight: list[list[float]], expected: list[list[float]]) -> None:
    assert torch.allclose(round_weight(torch.tensor(weight)), torch.tensor(expected))


def test_inputs_by_hand_each_sentence_with_its_own_range() -> None:
    states = torch.tensor([[[255.0, 0.4, 7.6]], [[2.55, -0.0, 0.004]], [[0.0, 0.0, 0.0]]])
    expected = torch.tensor([[[255.0, 0.0, 8.0]], [[2.55, 0.0, 0.0]], [[0.0, 0.0, 0.0]]])
    assert torch.allclose(round_input(states), expected)


@given(seed=st.integers(0, 1000), spread=st.floats(0.01, 100), shift=st.floats(-3, 3))
def test_inputs_are_rounded_as_the_int8_graph_rounds_them(seed: int, spread: float, shift: float) -> None:
    """`DynamicQuantizeLinear` as ONNX defines it."""
    from onnx.reference import ReferenceEvaluator

    states = (np.random.default_rng(seed).normal(size=(1, 3, 5)) * spread + shift).astype(np.float32)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
    value = helper.make_tensor_value_info
    kinds = {"q": onnx.TensorProto.UINT8, "scale": onnx.TensorProto.FLOAT, "zero": onnx.TensorProto.UINT8}
    graph = helper.make_graph(
        [node],
        "one",
        [value("x", onnx.TensorProto.FLOAT, None)],
        [value(name, kind, None) for name, kind in kinds.items()],
    )
    q, scale, zero = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": states})
    theirs = (q.astype(np.float32) - np.float32(zero)) * scale
    assert np.abs(round_input(torch.from_numpy(states)).numpy() - theirs).max() <= 1.01 * scale


def test_the_gradient_passes_as_if_nothing_was_rounded() -> None:
    weight = torch.tensor([[1.0, 0.3, -0.7]], requires_grad=True)
    (round_weight(weight) * torch.tensor([[2.0, 3.0, 5.0]])).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[2.0, 3.0, 5.0]]


def test_products_round_only_while_entered_and_weights_stay(tiny_checkpoint: Path) -> None:
    model = load_model(tiny_checkpoint)
    ids = torch.arange(5, 13).reshape(2, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        plain = model(input_ids=ids).logits
        with rounded(model):
            inside = model(input_ids=ids).logits
        again = model(input_ids=ids).logits
    assert 0 < float((inside - plain).abs().max()) < 0.1
    assert torch.equal(again, plain)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_map_is_what_its_rounded_parts_give() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3))
    states = torch.randn(2, 4, 6)
    with rounded(model):
        found = model(states)
    linear = model[0]
    assert torch.allclose(found, round_input(states) @ round_weight(linear.weight).T + linear.bias, atol=1e-6)


def test_weights_have_as_many_values_as_onnxruntime_gives_them() -> None:
    """The same int8 numbers as the quantizer that writes bundles, for weights whose rows are the outputs."""
    from compress.quantization.int8 import dynamic

    rows = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [value("x", onnx.TensorProto.FLOAT, ["n", 8])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.ascontiguousarray(rows.T), "w")],
    )
    made = dynamic(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    theirs = stored["w_quantized"].astype(np.float32) * stored["w_scale"]
    assert np.allclose(round_weight(torch.from_numpy(rows)).numpy().T, theirs, atol=1e-6)
