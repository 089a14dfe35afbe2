"""Smoothing changes no answer, and leaves int8 less to lose."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.quantization import int8
from compress.quantization.smooth import scales, smooth

WIDTH = 16
GENERATOR = np.random.default_rng(1)
TABLE = GENERATOR.normal(size=(32, WIDTH)).astype(np.float32)
WEIGHTS = {name: GENERATOR.normal(size=(WIDTH, 8)).astype(np.float32) for name in ("a", "b")}
BATCHES = [{"input_ids": GENERATOR.integers(0, 32, (1, 9))} for _ in range(8)]


def graph(outlier: float) -> onnx.ModelProto:
    """An embedding whose channel 3 is larger than the others, and two products that read it with small weights."""
    large = np.where(np.arange(WIDTH) == 3, outlier, 1).astype(np.float32)
    stored = {"table": TABLE * large, **{name: weight / large[:, None] for name, weight in WEIGHTS.items()}}
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["states"], name="look up")]
    nodes += [helper.make_node("MatMul", ["states", name], [f"{name}.out"], name=f"product {name}") for name in WEIGHTS]
    nodes.append(helper.make_node("Add", ["a.out", "b.out"], ["out"], name="sum"))
    made = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "length"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", "length", 8])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def answers(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, batch)[0] for batch in BATCHES])


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_the_answers_stay() -> None:
    before = graph(50)
    after = smooth(before, BATCHES)
    assert operators(after) == ["Gather", "Mul", "MatMul", "MatMul", "Add"]
    assert operators(before) == ["Gather", "MatMul", "MatMul", "Add"]
    onnx.checker.check_model(after)
    np.testing.assert_allclose(answers(after), answers(before), rtol=1e-4, atol=1e-4)


def test_one_division_serves_all_products_of_an_activation() -> None:
    made = smooth(graph(50), BATCHES)
    stored = {value.name: numpy_helper.to_array(value) for value in made.graph.initializer}
    before = {value.name: numpy_helper.to_array(value) for value in graph(50).graph.initializer}
    for name in WEIGHTS:
        np.testing.assert_allclose(stored[name] * stored["a.smoothing"][:, None], before[name], rtol=1e-5)
    assert stored["a.smoothing"].argmin() == 3


def test_without_an_outlier_nothing_is_written() -> None:
    assert smooth(graph(1), BATCHES) == graph(1)


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_int8_comes_closer(method: str) -> None:
    def error(model: onnx.ModelProto) -> float:
        made = int8.dynamic(model) if method == "dynamic" else int8.static(model, BATCHES)
        return float(np.square(answers(made) - answers(graph(200))).mean())

    plain, smoothed = error(graph(200)), error(smooth(graph(200), BATCHES))
    assert smoothed < plain / 4


def test_scales_by_hand() -> None:
    # the median is 2: what is above 4 comes down to it, the rest stays
    np.testing.assert_array_equal(scales(np.array([1, 2, 2, 4, 28], np.float32)), [1, 1, 1, 1, 7])


def test_channels_without_values_keep_their_scale() -> None:
    np.testing.assert_array_equal(scales(np.array([0, 2, 2], np.float32)), [1, 1, 1])
    # most are dead: they say nothing of what is usual
    np.testing.assert_array_equal(scales(np.array([0, 0, 0, 0, 2, 2, 28], np.float32)), [1, 1, 1, 1, 1, 1, 7])
    np.testing.assert_array_equal(scales(np.zeros(3, np.float32)), [1, 1, 1])


def test_tables_have_a_scale_a_column() -> None:
    made = int8.tables(graph(200))
    stored = {value.name: numpy_helper.to_array(value) for value in made.graph.initializer}
    assert stored["table_quantized"].dtype == np.int8 and stored["table_scale"].shape == (WIDTH,)
    assert abs(stored["table_quantized"]).max(axis=0).tolist() == [127] * WIDTH
    largest = np.abs(TABLE).max(axis=0) * np.where(np.arange(WIDTH) == 3, 200, 1)
    found = stored["table_quantized"] * stored["table_scale"]
    wanted = TABLE * np.where(np.arange(WIDTH) == 3, 200, 1)
    assert (np.abs(found - wanted) <= largest / 127 / 2 * 1.001).all()
    assert operators(made)[:3] == ["Gather", "Cast", "Mul"]
