"""What int8 does to a product, worked out by hand, and which of several it hurts most."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.quantization.sensitivity import Rounding, Scan, Sensitivity, scan
from compress.quantization.watch import Watched, products

Floats = NDArray[np.float32]


def watched(values: list[Floats], bias: Floats | float = 0, **weights: Floats) -> Watched:
    """A graph in which products of these weights read the same values; `turned` is stored the other way round."""
    nodes, stored = [], []
    for name, weight in weights.items():
        turned = name == "turned"
        stored.append(numpy_helper.from_array(np.full(weight.shape[1], bias, np.float32), f"{name}.bias"))
        if turned:
            inputs = ["x", "turned.weight", "turned.bias"]
            nodes.append(helper.make_node("Gemm", inputs, [name], name="node of turned", transB=1))
        else:
            nodes.append(helper.make_node("MatMul", ["x", f"{name}.weight"], [f"{name}/0"], name=f"node of {name}"))
            nodes.append(helper.make_node("Add", [f"{name}.bias", f"{name}/0"], [name], name=f"bias of {name}"))
        stored.append(numpy_helper.from_array(weight.T.copy() if turned else weight, f"{name}.weight"))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", values[0].shape[1]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in weights],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Watched(model, products(model), [{"x": each} for each in values])


def test_an_error_by_hand() -> None:
    # from 0 to 255 a step is 1, and 1.4 becomes 1; up to 64 a weight's step is 1, too, and 0.4 becomes 0
    found = scan(watched([np.array([[255, 1.4]], np.float32)], only=np.array([[0.4], [64]], np.float32)), Rounding())
    exact, coarse = 255 * 0.4 + 1.4 * 64, 255 * 0 + 1 * 64
    assert found[0].error == pytest.approx((coarse - exact) ** 2 / exact**2)
    assert (found[0].name, found[0].shape) == ("only", (2, 1))
    # the bias is no noise, and makes the product twice as large
    two = watched([np.array([[255, 1.4]], np.float32)], exact, only=np.array([[0.4], [64]], np.float32))
    assert scan(two, Rounding())[0].error == pytest.approx((coarse - exact) ** 2 / (2 * exact) ** 2)
    # channels of 255 and 1.4, whose median is 128.2; rows of 64 and 0.4, whose median is 32.2
    assert found[0].outlier == pytest.approx(255 / 128.2)
    assert found[0].weight_outlier == pytest.approx(64 / 32.2)


@pytest.mark.parametrize(
    ("rounding", "values", "expected"),
    [
        (Rounding(), [0, 254.6, 255], [0, 255, 255]),
        (Rounding(), [-255, 0.4, 255], [-256, 0, 254]),  # steps of 2, 128 of them below 0 and 127 above
        (Rounding(), [100, 200, 255], [100, 200, 255]),  # 0 is in every range
        (Rounding({"x": (0, 51)}), [0.11, 51, 99], [0.2, 51, 51]),  # a step of 0.2; what is beyond is cut off
        (Rounding({"x": (-127, 127)}, symmetric=True), [-200, 0.4, 127], [-127, 0, 127]),
        (Rounding(symmetric=True), [-127, 0.4, 127], [-127, 0, 127]),
        (Rounding(), [0, 0, 0], [0, 0, 0]),
    ],
)
def test_rounding_by_hand(rounding: Rounding, values: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(rounding.states("x", np.array(values, np.float32)), expected, atol=1e-5)


def test_weights_have_7_bits_and_8_for_tensorrt() -> None:
    weight = np.array([[127, 64], [0.9, 0.4]], np.float32)
    np.testing.assert_allclose(Rounding().weight(weight), [[127, 64], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(Rounding(symmetric=True).weight(weight), [[127, 64], [1, 64 / 127]], rtol=1e-6)


GENERATOR = np.random.default_rng(5)
VALUES = [GENERATOR.normal(size=(7, 32)).astype(np.float32) for _ in range(4)]
PLAIN = GENERATOR.normal(size=(32, 8)).astype(np.float32)
ONE_ROW = np.where(np.arange(32)[:, None] == 3, 0, PLAIN).astype(np.float32)


def test_the_worst_comes_first_and_says_why() -> None:
    large = PLAIN.copy()
    large[3] *= 300  # each column's scale is that of its largest row
    quiet = [np.where(np.arange(32) == 3, np.float32(1e-4), each) for each in VALUES]
    found = scan(watched(quiet, plain=PLAIN, large=large, turned=PLAIN), Rounding())
    assert [row.name for row in found] == ["large", "plain", "turned"]
    assert found[0].error > 0.1 > 100 * found[1].error
    assert found[1].error == pytest.approx(found[2].error) and found[1].shape == found[2].shape == (32, 8)
    assert found[0].weight_outlier > 200 and "largest weight row" in found[0].why
    assert "weight" not in found[1].why and f"{found[1].error:.2%}" in found[1].why


def test_an_outlier_channel_of_the_input() -> None:
    loud = [np.where(np.arange(32) == 3, np.float32(500) * each, each) for each in VALUES]
    found = scan(watched(loud, plain=ONE_ROW), Rounding())[0]
    assert found.error > 100 * scan(watched(VALUES, plain=ONE_ROW), Rounding())[0].error
    assert found.outlier > 200 and "largest input channel" in found.why


def test_a_constant_hides_no_error() -> None:
    shifted = [each + np.where(np.arange(32) == 3, np.float32(777), np.float32(0)) for each in VALUES]
    found = scan(watched(shifted, -777 * PLAIN[3], plain=PLAIN), Rounding())[0]
    assert found.error > 0.5  # steps of 3 for values of 1, though without the bias the constant is all of its power
    assert found.outlier > 200


def test_fixed_ranges_are_worse_than_those_of_each_run() -> None:
    runs = [VALUES[0] * np.float32(0.01), VALUES[1]]
    one = watched(runs[:1], plain=PLAIN)
    fixed = Rounding({"x": (float(runs[1].min()), float(runs[1].max()))})
    assert scan(one, fixed)[0].error > 100 * scan(one, Rounding())[0].error


def test_a_product_of_nothing_has_no_error() -> None:
    found = scan(watched([np.zeros((1, 2), np.float32)], none=np.zeros((2, 2), np.float32)), Rounding())
    assert found == (Sensitivity("none", (2, 2), 0.0, 0.0, 0.0),)


def test_the_figures_as_json() -> None:
    rows = (Sensitivity("encoder.0.up", (2, 3), 0.5, 7.0, 1.0),)
    value = json.loads(json.dumps(Scan("dynamic", 3, rows).to_json()))
    assert value["rows"] == [
        {"name": "encoder.0.up", "shape": [2, 3], "error": 0.5, "outlier": 7.0, "weight_outlier": 1.0}
    ]
    assert (value["method"], value["texts"]) == ("dynamic", 3)


def test_what_is_predicted_is_what_onnxruntime_makes() -> None:
    """The error of one dynamic product in onnxruntime is the one that the scan says."""
    import onnxruntime

    from compress.quantization.operators import MOST, rounded

    numbers, scales = rounded(PLAIN, 0, MOST)
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain="com.microsoft")
    stored = [numpy_helper.from_array(numbers, "w"), numpy_helper.from_array(scales, "s")]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        stored,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    noise = sum(float(np.square(session.run(None, {"x": each})[0] - each @ PLAIN).sum()) for each in VALUES)
    signal = sum(float(np.square(each @ PLAIN).sum()) for each in VALUES)
    assert scan(watched(VALUES, plain=PLAIN), Rounding())[0].error == pytest.approx(noise / signal, rel=1e-3)
