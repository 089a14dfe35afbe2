from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from command_runs import Project, copy_steps
from onnx import TensorProto, helper, numpy_helper
from test_quantize import TASK, dataset, split, trained
from test_steps import opened
from tiny_models import tiny_model
from torch import nn

from compress.quantization import inc
from compress.quantization.folded import store_weights
from compress.quantization.quantize import quantize
from compress.quantization.watch import Batch
from compress.steps import quantize_step, run_export, run_quantize
from distill import steps
from distill.checkpoint import save
from distill.errors import MissingExtraError, RecipeError, RunError
from distill.recipe import QuantizeRecipe, parse
from export.bundle import Bundle, read_bundle
from export.graph import export, inputs_of
from export.runtime import load

SETTINGS = QuantizeRecipe(methods=("inc-static",), max_drop=0.1, margin=0.2, max_flips=0.2, calibration_examples=16)


@pytest.fixture(scope="module")
def checkpoint(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier that learned the toy rows."""
    folder = tmp_path_factory.mktemp("inc") / "checkpoint"
    save(*trained(tiny_encoder), TASK, folder)
    return folder


@pytest.fixture(scope="module")
def fp32(checkpoint: Path) -> Bundle:
    """Its bundle."""
    return export(checkpoint, checkpoint.parent / "fp32", opset=20, atol=1e-3, examples=split(20, 4))


def installed() -> None:
    """Skip where the optional part is missing."""
    pytest.importorskip("neural_compressor", reason="neural-compressor is not installed (pip install 'potstill[inc]')")


def test_a_bundle_alone_is_refused_before_anything_is_tried(fp32: Bundle, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"methods": ("dynamic", "inc-static")})
    with pytest.raises(RecipeError, match=r"inc-static works on the torch model.*compress quantize CHECKPOINT"):
        quantize(fp32, tmp_path / "int8", dataset(), settings)
    assert not list(tmp_path.iterdir())


def test_without_neural_compressor_the_extra_is_named(
    fp32: Bundle, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "neural_compressor", None)  # what Python finds where it is not installed
    with pytest.raises(MissingExtraError, match=r"pip install 'potstill\[train,cpu,inc\]'"):
        quantize(fp32, tmp_path / "int8", dataset(), SETTINGS, checkpoint)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"quantize": {"methods": ["inc-static"], "device": "tensorrt"}}, "inc-static do not go with device tensorrt"),
        ({"quantize": {"methods": ["inc-static"], "exclude": ["head.out"]}}, "exclude does not go with method inc-st"),
        ({"quantize": {"methods": ["inc-static"]}, "task": {"kind": "translation"}}, "translation has no static int8"),
    ],
)
def test_recipes_that_do_not_go_together(section: dict[str, object], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse({"name": "a", "data": {"source": "a.csv"}, "teacher": {"model": "b"}, **section}, "recipe.yaml")
    assert problem in str(caught.value)


def test_it_passes_the_gate_beside_the_others_and_answers_like_the_checkpoint(
    fp32: Bundle, checkpoint: Path, tmp_path: Path
) -> None:
    installed()
    settings = SETTINGS.model_copy(update={"methods": ("inc-static", "static")})
    result = quantize(fp32, tmp_path / "int8", dataset(), settings, checkpoint)
    assert [trial.label for trial in result.tried] == ["inc-static", "static"]
    made = read_bundle(tmp_path / "int8")
    assert (result.method, made.precision) == ("inc-static", "int8-static")
    assert (made.inputs, made.outputs) == (fp32.inputs, fp32.outputs)
    assert made.details["quantization"]["products"] == "26 of 26 products quantized"
    assert made.details["reduce_range"] is True
    texts = dataset().splits["validation"].texts
    exact, small = load(fp32.folder).logits(texts), load(made.folder).logits(texts)
    assert (exact.argmax(-1) == small.argmax(-1)).mean() > 0.9
    assert 0 < np.abs(exact - small).max() < 2
    assert made.files["onnx/model_int8.onnx"].bytes < fp32.files["onnx/model.onnx"].bytes * 0.6


@pytest.fixture
def exported(project: Project, finished_run: Path, tmp_path: Path) -> steps.Run:
    """A run up to its fp32 bundle, with nothing pruned."""
    folder = copy_steps(finished_run, tmp_path / "run", "teacher", "signals", "student")
    limits = {"max_drop": 0.3, "margin": 0.6, "max_flips": 1.0}
    found = opened(project, folder, prune=None, quantize={"methods": ["inc-static"], **limits})
    run_export(found, "student", "fp32")
    return found


def test_a_run_hands_on_its_last_checkpoint(exported: steps.Run) -> None:
    step = quantize_step(exported, SETTINGS)
    assert set(step.inputs) - set(quantize_step(exported, QuantizeRecipe()).inputs) == {"model"}
    shutil.rmtree(exported.folder / "student")
    with pytest.raises(RunError, match="student is not there or not finished"):
        quantize_step(exported, SETTINGS)


def test_in_a_run(exported: steps.Run) -> None:
    installed()
    assert exported.recipe.quantize is not None
    run_quantize(exported, exported.recipe.quantize)
    assert read_bundle(exported.folder / "bundle").details["quantization"]["method"] == "inc-static"


def random_batches(model: nn.Module, count: int) -> list[Batch]:
    """Batches of one row of random ids."""
    random = np.random.default_rng(0)
    batches = []
    for length in random.integers(3, 20, count):
        ids = random.integers(5, 50, (1, length))
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        batches.append({name: batch[name] for name in inputs_of(model)})
    return batches


def static_graph(model: nn.Module, metrics: list[float]) -> tuple[onnx.ModelProto, int]:
    """The int8 graph of a model, judged by metrics that are given in turn, and how many were asked for."""
    batches, left = random_batches(model, 64), iter(metrics)
    graph = inc.static(model, batches, lambda answering: next(left), 0.01, 20)
    return graph, len(metrics) - len(list(left))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A distilbert, which has no segments and a head of its own."""
    return tiny_model("distilbert", layers=2)


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> onnx.ModelProto:
    """It in int8, as the default configuration has it, which loses nothing here."""
    installed()
    made, asked = static_graph(model, [0.8, 0.8])
    assert asked == 2
    return made


def test_another_architecture_close_to_torch_with_nothing_of_this_machine(
    model: nn.Module, graph: onnx.ModelProto
) -> None:
    assert [value.name for value in graph.graph.input] == ["input_ids", "attention_mask"]
    data = graph.SerializeToString()
    assert not any(word in data for word in (b"site-packages", b".py", b"stack_trace", b"namespace"))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    batches = random_batches(model, 32)
    with torch.no_grad():
        exact = np.concatenate(
            [model(**{name: torch.from_numpy(ids) for name, ids in batch.items()}).logits.numpy() for batch in batches]
        )
    found = np.concatenate([session.run(None, dict(batch))[0] for batch in batches])
    assert 0 < np.abs(exact - found).mean() < 0.25 * np.abs(exact).mean()  # random weights lose the most: 0.16


def test_no_answer_depends_on_its_batch(model: nn.Module, graph: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = random_batches(model, 6)
    length = max(row["input_ids"].shape[1] for row in rows)
    together = {
        name: np.concatenate([np.pad(row[name], ((0, 0), (0, length - row[name].shape[1]))) for row in rows])
        for name in rows[0]
    }
    alone = np.concatenate([session.run(None, dict(row))[0] for row in rows])
    np.testing.assert_allclose(session.run(None, together)[0], alone, atol=1e-4)


def test_weights_are_stored_in_seven_bits_and_activations_rounded_once_for_all_readers(graph: onnx.ModelProto) -> None:
    stored = {value.name: numpy_helper.to_array(value) for value in graph.graph.initializer}
    weights = {name: value for name, value in stored.items() if name.endswith(".weight_quantized")}
    products = {name: value for name, value in weights.items() if "embeddings" not in name}
    assert len(products) == 2 * 6 + 2
    assert all(value.dtype == np.int8 and np.abs(value).max() == 64 for value in products.values())
    assert not any(
        value.dtype == np.float32 and name.endswith(".weight") for name, value in stored.items() if value.ndim == 2
    )
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert kinds["Clip"] == 0
    assert kinds["QuantizeLinear"] == 2 * 4 + 2  # queries, keys and values read the same one


def test_the_same_model_gives_the_same_graph(model: nn.Module, graph: onnx.ModelProto) -> None:
    again, _ = static_graph(model, [0.8, 0.8])
    assert again.SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("metrics", "asked"),
    [
        ([0.8, 0.7, 0.795, 0.9], 3),  # the default is a tenth away, the first of the others half a point
        ([0.8, 0.5, 0.6, 0.7, 0.6, 0.5], 5),  # fp32, the default, three others: the best of these is taken
        ([0.0, 0.0], 2),  # a metric of nothing is no division by it
    ],
)
def test_configurations_are_tried_until_one_loses_little(metrics: list[float], asked: int, model: nn.Module) -> None:
    installed()
    made, found = static_graph(model, metrics)
    assert found == asked
    assert any(node.op_type == "QuantizeLinear" for node in made.graph.node)


def test_a_rounded_weight_becomes_numbers_and_scales() -> None:
    weight = np.array([[1.0, -0.5, 0.26], [0.02, -0.64, 0.1]], np.float32)
    scale, zeros = np.array([0.5, 0.01], np.float32), np.zeros(2, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["model.head.weight", "scale", "zeros"], ["whole"], axis=0),
        helper.make_node("Clip", ["whole", "low", "high"], ["cut"]),
        helper.make_node("DequantizeLinear", ["cut", "scale", "zeros"], ["float"], axis=0),
        helper.make_node("Transpose", ["float"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["states", "turned"], ["logits"]),
    ]
    parts = {"model.head.weight": weight, "scale": scale, "zeros": zeros, "low": np.int8(-64), "high": np.int8(20)}
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parts.items()],
    )
    model = ir.serde.deserialize_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    )
    store_weights(model)
    after = ir.serde.serialize_model(model)
    assert [node.op_type for node in after.graph.node] == ["DequantizeLinear", "MatMul"]
    stored = {value.name: numpy_helper.to_array(value) for value in after.graph.initializer}
    assert stored["head.weight_quantized"].tolist() == [[2, 2], [-1, -64], [1, 10]]
    session = onnxruntime.InferenceSession(after.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"states": np.eye(3, dtype=np.float32)})[0]
    np.testing.assert_allclose(found, [[1, 0.02], [-0.5, -0.64], [0.5, 0.1]], atol=1e-6)
