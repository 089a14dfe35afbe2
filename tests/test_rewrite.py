from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from export.rewrite import rewrite, strip

RANDOM = np.random.default_rng(0)
STORED = {
    "net.up.bias": RANDOM.normal(size=6).astype(np.float32),
    "w": RANDOM.normal(size=(4, 6)).astype(np.float32),
    "scale": np.ones(4, np.float32),
    "first": np.array(0, np.int64),
    "second": np.array(1, np.int64),
    "split": np.array([0, 0, 2, 2], np.int64),
}


def build(body: str, output: str = "float[B, 6] y") -> ir.Model:
    """A graph from ONNX text with input x (batch, length, 4), its shapes inferred as the exporter would."""
    stored = ", ".join(
        f"{'int64' if a.dtype == np.int64 else 'float'}{list(a.shape) or ''} {n.replace('.', '__')}"
        for n, a in STORED.items()
    )
    text = f'<ir_version: 9, opset_import: ["" : 20]> g (float[B, L, 4] x, {stored}) => ({output}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    named = {name.replace(".", "__"): array for name, array in STORED.items()}
    inputs = [value for value in proto.graph.input if value.name == "x"]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in named.items())
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    for name in STORED:
        model.graph.initializers[name.replace(".", "__")].name = name
    return model


def run(model: ir.Model, shape: tuple[int, ...] = (2, 5, 4)) -> np.ndarray:
    proto = ir.serde.serialize_model(model)
    strip(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)})[0]


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


PRODUCT = "m = MatMul(x, w) b = Add(m, net__up__bias) g = Gelu(b)"
ATTENTION = """
    r = Reshape(x, split) q = Transpose<perm = [0, 2, 1, 3]>(r) k = Transpose<perm = [0, 2, 3, 1]>(r)
    v = Transpose<perm = [0, 2, 1, 3]>(r) s = MatMul(q, k) p = Softmax<axis = -1>(s) c = MatMul(p, v)
    t = Transpose<perm = [0, 2, 1, 3]>(c)
    size = Shape(x) o = Reshape(t, size) h = Add(o, x) n = LayerNormalization<axis = -1>(h, scale)
    y = Gather<axis = 1>(n, first)
"""


@pytest.mark.parametrize(
    ("body", "output", "cuts"),
    [
        (f"{PRODUCT} y = Gather<axis = 1>(g, first)", "float[B, 6] y", 1),
        (f"{PRODUCT} y = Gather<axis = 1>(g, second)", "float[B, 6] y", 0),  # another position
        (f"{PRODUCT} y = Gather<axis = 0>(g, first)", "float[L, 6] y", 0),  # another axis
        (f"{PRODUCT} a = Gather<axis = 1>(g, first) e = ReduceSum(g) y = Add(a, e)", "float[B, 6] y", 1),  # read twice
        (ATTENTION, "float[B, 4] y", 2),  # queries and the residual
    ],
)
def test_answers_stay(body: str, output: str, cuts: int) -> None:
    expected = run(build(body, output))
    model = build(body, output)
    rewrite(model, "net.")
    np.testing.assert_allclose(run(model), expected, atol=1e-6)
    assert kinds(model).count("Slice") == cuts


def test_the_product_sees_one_position() -> None:
    model = build(f"{PRODUCT} y = Gather<axis = 1>(g, first)")
    rewrite(model, "net.")
    assert kinds(model) == ["Slice", "MatMul", "Add", "Gelu", "Gather"]


def test_what_others_read_is_computed_in_full() -> None:
    model = build(f"{PRODUCT} a = Gather<axis = 1>(g, first) e = ReduceSum(g) y = Add(a, e)")
    rewrite(model, "net.")
    assert kinds(model).index("Slice") > kinds(model).index("Gelu")


def test_attention_asks_for_one_position_and_looks_at_all() -> None:
    model = build(ATTENTION, "float[B, 4] y")
    rewrite(model, "net.")
    keys = next(node for node in model.graph if list(node.attributes.get_ints("perm", [])) == [0, 2, 3, 1])
    assert "first" not in (keys.inputs[0].name or "")
    assert "Sum" in kinds(model)  # the residual, kept apart from its norm
    assert "Shape" not in kinds(model)  # the constant shape replaced what was computed


@pytest.mark.parametrize("shape", [(1, 1, 4), (3, 1, 4), (1, 9, 4)])
def test_batch_and_length_stay_free(shape: tuple[int, int, int]) -> None:
    model = build(ATTENTION, "float[B, 4] y")
    expected = run(model, shape)
    rewrite(model, "net.")
    np.testing.assert_allclose(run(model, shape), expected, atol=1e-6)


def test_weights_are_named_after_their_bias() -> None:
    model = build(f"{PRODUCT} y = Gather<axis = 1>(g, first)")
    rewrite(model, "net.")
    assert {"up.weight", "up.bias"} <= set(model.graph.initializers)


def test_strip_reaches_nested_graphs() -> None:
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["z"], doc_string="/home/somebody")],
        "inner", [], [onnx.helper.make_tensor_value_info("z", 1, None)], doc_string="secret",
    )  # fmt: skip
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = onnx.helper.make_graph([node], "outer", [], [])
    model = onnx.helper.make_model(graph, doc_string="built by somebody")
    model.metadata_props.add(key="path", value="/home/somebody")
    strip(model)
    content = model.SerializeToString()
    assert b"somebody" not in content
    assert b"secret" not in content
