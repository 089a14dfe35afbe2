from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import toy_rows
from onnx import TensorProto, helper, numpy_helper

from compress.quantization import int8
from compress.quantization.gate import Limits, decide
from compress.quantization.products import Products, bytes_by_part, count_products
from compress.quantization.quantize import Trial, best_trial, quantize, resolved
from compress.quantization.tasks.classification import calibration_texts, difference
from distill.checkpoint import load_model, load_tokenizer, save
from distill.data import Dataset, Split
from distill.errors import DataError, GateError
from distill.files import hash_files
from distill.metrics import paired_difference, score
from distill.recipe import QuantizeRecipe
from distill.task import Task
from export.bundle import Bundle, read_bundle
from export.graph import export
from export.runtime import load

TASK = Task("classification", ("negative", "positive"), max_length=32)


def split(count: int, seed: int) -> Split:
    rows = toy_rows(count, seed)
    return Split(tuple(text for text, _ in rows), None, tuple(int(label == "positive") for _, label in rows))


def dataset(train: Split | None = None, validation: Split | None = None) -> Dataset:
    splits = {
        "train": split(40, 1) if train is None else train,
        "validation": split(150, 2) if validation is None else validation,
        "test": split(10, 3),
    }
    return Dataset(TASK, splits, "0" * 64, {}, ())


def trained(tiny_encoder: Path) -> tuple[Any, Any]:
    """A tiny classifier that learned the toy rows, with its tokenizer."""
    import torch

    model = load_model(tiny_encoder, TASK).eval()
    tokenizer = load_tokenizer(tiny_encoder)
    rows = split(64, 5)
    encoded = tokenizer(list(rows.texts), padding=True, return_tensors="pt")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        model(**encoded, labels=torch.tensor(rows.labels)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, tokenizer


@pytest.fixture(scope="module")
def bundle(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """It as fp32."""
    folder = tmp_path_factory.mktemp("int8")
    save(*trained(tiny_encoder), TASK, folder / "checkpoint")
    return export(folder / "checkpoint", folder / "fp32", opset=20, atol=1e-3, examples=split(20, 4))


@pytest.fixture
def settings() -> QuantizeRecipe:
    return QuantizeRecipe(max_drop=0.1, margin=0.2, max_flips=0.2, calibration_examples=16)


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_each_method_makes_a_bundle_that_answers(
    method: str, bundle: Bundle, settings: QuantizeRecipe, tmp_path: Path
) -> None:
    result = quantize(bundle, tmp_path / "bundle", dataset(), settings.model_copy(update={"methods": (method,)}))
    made = read_bundle(tmp_path / "bundle")
    assert (result.method, made.precision) == (method, f"int8-{method}")
    assert set(made.files) == {"onnx/model_int8.onnx", "tokenizer.json", "config.json", "README.md"}
    assert made.details["quantization"]["products"] == "19 of 19 products quantized"
    assert made.details["reduce_range"] is True
    assert made.details["parity"] == bundle.details["parity"]
    assert (
        made.files["onnx/model_int8.onnx"].bytes < bundle.files["onnx/model.onnx"].bytes * 0.6
    )  # graph and positions are not weights
    texts = dataset().splits["validation"].texts
    exact, small = load(bundle.folder).logits(texts), load(made.folder).logits(texts)
    assert (exact.argmax(-1) == small.argmax(-1)).mean() > 0.9
    assert 0 < np.abs(exact - small).max() < 2


@pytest.mark.parametrize(
    ("device", "method", "precision", "furthest"),
    [
        ("cuda", None, "fp16", 0.05),
        ("tensorrt", None, "int8-static", 2),
        ("cpu", "int8-weights", "int8-weights", 0.2),
        ("cpu", "int4-weights", "int4-weights", 4),
    ],
)
def test_forms_for_devices(
    device: str, method: str | None, precision: str, furthest: float, bundle: Bundle, tmp_path: Path
) -> None:
    methods = None if method is None else [method]
    settings = QuantizeRecipe.model_validate(
        {"device": device, "methods": methods, "max_drop": 0.1, "margin": 0.2, "max_flips": 0.2}
    )
    made = quantize(bundle, tmp_path / "bundle", dataset(), settings).bundle
    assert (made.precision, made.device) == (precision, device)
    assert made.model_file == f"onnx/model_{precision.partition('-')[0]}.onnx"
    assert made.details["quantization"]["products"] == "19 of 19 products quantized"
    assert "reduce_range" not in made.details
    texts = dataset().splits["validation"].texts
    exact, small = load(bundle.folder).logits(texts), load(made.folder).logits(texts)
    assert 0 < np.abs(exact - small).max() < furthest


def test_tensorrt_gets_ranges_around_zero(bundle: Bundle, settings: QuantizeRecipe, tmp_path: Path) -> None:
    made = quantize(bundle, tmp_path / "bundle", dataset(), settings.model_copy(update={"device": "tensorrt"})).bundle
    graph = onnx.load(made.model_path).graph
    stored = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    quantizing = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(quantizing) >= 19
    assert all(stored[node.input[2]].dtype == np.int8 and not stored[node.input[2]].any() for node in quantizing)
    assert any(np.abs(value).max() == 127 for value in stored.values() if value.dtype == np.int8 and value.ndim == 2)


@pytest.mark.parametrize("device", ["cpu", "tensorrt"])
def test_only_products_with_a_stored_weight_read_rounded_values(
    device: str, bundle: Bundle, settings: QuantizeRecipe, tmp_path: Path
) -> None:
    update = {"device": device, "methods": ("static",) if device == "cpu" else None}
    made = quantize(bundle, tmp_path / "bundle", dataset(), settings.model_copy(update=update)).bundle
    graph = onnx.load(made.model_path).graph
    stored = {value.name for value in graph.initializer}
    opened = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    weights = {name for name, source in opened.items() if source in stored}
    readers = [node for node in graph.node if any(opened.get(name, "") not in ("", *stored) for name in node.input)]
    assert len(readers) >= 19
    assert all(node.op_type in ("MatMul", "Gemm") and node.input[1] in weights for node in readers)


def test_both_methods_are_tried_and_the_better_one_is_kept(
    bundle: Bundle, settings: QuantizeRecipe, tmp_path: Path
) -> None:
    result = quantize(bundle, tmp_path / "bundle", dataset(), settings)
    assert {trial.method for trial in result.tried} == {"dynamic", "static"}
    best = max(result.tried, key=lambda trial: (trial.verdict.rank, trial.score.value, trial.agreement))
    assert result.method == best.method
    tried = result.bundle.details["quantization"]["tried"]
    assert set(tried) == {"dynamic", "static"}
    for figures in tried.values():
        assert figures["gate"]["drop"]["n"] == 150
        assert 0.9 < figures["agreement"] <= 1
    sizes = result.bundle.details["quantization"]["bytes"]
    assert sizes["int8"]["word embedding"] * 4 == pytest.approx(sizes["fp32"]["word embedding"], rel=0.05)
    assert sizes["int8"]["encoder layers"] < sizes["fp32"]["encoder layers"] / 2


def test_static_answers_do_not_depend_on_the_batch(bundle: Bundle, settings: QuantizeRecipe, tmp_path: Path) -> None:
    update = {"methods": ("static",)}
    result = quantize(bundle, tmp_path / "bundle", dataset(), settings.model_copy(update=update))
    assert result.tried[0].verdict.batch_flips == 0
    model, texts = load(result.bundle.folder), split(30, 9).texts
    together, alone = (model.logits(texts, batch_size=size) for size in (32, 1))
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_nothing_of_the_builder_is_in_the_int8_bundle(bundle: Bundle, settings: QuantizeRecipe, tmp_path: Path) -> None:
    quantize(bundle, tmp_path / "bundle", dataset(), settings)
    for path in (tmp_path / "bundle").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [text for text in (b"/home", b"/tmp", b"site-packages", b"/usr/") if text in content], path.name


def test_quantizing_twice_gives_the_same_bytes(bundle: Bundle) -> None:
    graph = onnx.load(bundle.model_path)
    before = graph.SerializeToString(deterministic=True)
    first, second = (int8.dynamic(graph).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert graph.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("validation", "message"), [(split(30, 2), "undecided: n=30, need about"), (None, "more than max_drop")]
)
def test_what_fails_the_gate_is_kept_as_rejected(
    validation: Split | None, message: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if validation is None:  # damage the weights on the way, so that there is something to reject
        monkeypatch.setattr(int8, "dynamic", damaged(int8.dynamic))
    before = hash_files(bundle.folder)
    settings = QuantizeRecipe(methods=("dynamic",), max_flips=0.5)
    for _ in range(2):  # the second time takes the place of the first
        with pytest.raises(GateError) as caught:
            quantize(bundle, tmp_path / "bundle", dataset(validation=validation), settings)
        assert message in str(caught.value)
        assert caught.value.exit_code == 3
    kept = read_bundle(tmp_path / "rejected-bundle")
    assert kept.precision == "int8-dynamic"
    assert kept.details["quantization"]["tried"]["dynamic"]["gate"]["state"] != "passed"
    assert [path.name for path in tmp_path.iterdir()] == ["rejected-bundle"]
    assert hash_files(bundle.folder) == before


def damaged(make: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    def make_damaged(graph: onnx.ModelProto, left_float: frozenset[str]) -> onnx.ModelProto:
        made = make(graph, left_float)
        for value in made.graph.initializer:
            if value.name == "head.out.weight":
                value.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(value), value.name))
        return made

    return make_damaged


def test_no_validation_rows(bundle: Bundle, settings: QuantizeRecipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="validation rows"):
        quantize(bundle, tmp_path / "bundle", dataset(validation=Split((), None, ())), settings)


@pytest.mark.parametrize("texts", [(), ("same",), ("same", "same", "same")])
def test_ranges_need_different_texts(texts: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="at least 2 different ones, found"):
        calibration_texts(texts, 8)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, ["a"]), (2, ["a", "ddddd"]), (3, ["a", "ccc", "ddddd"]), (99, ["a", "bb", "ccc", "dddd", "ddddd"])],
)
def test_calibration_texts_are_spread_over_the_lengths(count: int, expected: list[str]) -> None:
    assert calibration_texts(["ccc", "a", "ddddd", "bb", "dddd", "a"], count) == expected


def test_calibration_takes_pairs() -> None:
    assert calibration_texts([("bb", "cc"), ("a", "b")], 2) == [("a", "b"), ("bb", "cc")]


def graph_of(*nodes: onnx.NodeProto, **stored: np.ndarray) -> onnx.GraphProto:
    weights = [numpy_helper.from_array(array, name.replace("__", ".")) for name, array in stored.items()]
    return helper.make_graph(list(nodes), "g", [], [], weights)


def test_products_are_counted_by_hand() -> None:
    graph = graph_of(
        helper.make_node("MatMul", ["x", "float"], ["a"]),  # a float product
        helper.make_node("Gemm", ["a", "other"], ["b"]),  # another
        helper.make_node("MatMul", ["b", "float"], ["again"]),  # the first, on another way through the graph
        helper.make_node("MatMul", ["a", "b"], ["c"]),  # two activations: not counted
        helper.make_node("MatMulInteger", ["x8", "int"], ["d"]),  # int8
        helper.make_node("DequantizeLinear", ["stored", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["e"]),  # int8 by QDQ
        helper.make_node("DequantizeLinear", ["stored", "scale"], ["w2"]),
        helper.make_node("MatMul", ["x", "w2"], ["e2"]),  # the same weight again
        helper.make_node("DequantizeLinear", ["x8", "scale"], ["y"]),
        helper.make_node("MatMul", ["x", "y"], ["f"]),  # two activations again
        float=np.zeros((2, 2), np.float32),
        other=np.zeros((2, 2), np.float32),
        int=np.zeros((2, 2), np.int8),
        stored=np.zeros((2, 2), np.int8),
        scale=np.ones((), np.float32),
    )
    assert str(count_products(graph)) == "2 of 4 products quantized"


def test_bytes_by_part_by_hand() -> None:
    graph = graph_of(
        bert__embeddings__word_embeddings__weight=np.zeros((10, 4), np.float32),
        bert__embeddings__position_embeddings__weight=np.zeros((3, 4), np.float32),
        bert__encoder__layer__0__output__dense__weight=np.zeros((4, 4), np.int8),
        distilbert__transformer__layer__1__ffn__lin1__bias=np.zeros(4, np.float32),
        classifier__weight=np.zeros((4, 2), np.float32),
        val_3=np.zeros(2, np.int64),
    )
    expected = {"word embedding": 160, "encoder layers": 16 + 16, "head": 32, "rest": 48 + 16}
    assert bytes_by_part(graph) == expected
    assert graph.initializer[0].data_type == TensorProto.FLOAT


GOLD = (0, 1) * 100


def trial(method: str, wrong: int, max_drop: float = 0.5) -> Trial:
    """A trial that answers the first `wrong` of 200 rows wrongly; fp32 answers all of them."""
    labels = np.array(GOLD)
    labels[:wrong] = 1 - labels[:wrong]
    drop = paired_difference("accuracy", GOLD, GOLD, labels, 2)
    verdict = decide(drop, Limits(max_drop, 0.5, 0.02))
    return Trial(
        method, Path(), labels, score("accuracy", GOLD, labels, 2), 1 - wrong / 200, verdict, Products(1, 1), {}
    )


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (trial("dynamic", 0), trial("static", 0), "dynamic"),
        (trial("dynamic", 2), trial("static", 1), "dynamic"),  # one row in 200 is chance
        (trial("dynamic", 30), trial("static", 1), "static"),
        (trial("dynamic", 30, max_drop=0.01), trial("static", 31), "static"),  # only one passes
        (trial("static", 2), trial("dynamic", 1), "static"),  # the recipe's order
    ],
)
def test_a_later_method_has_to_be_better_by_more_than_chance(first: Trial, second: Trial, kept: str) -> None:
    rows = Split(("",) * len(GOLD), None, GOLD)
    assert best_trial([first, second], partial(difference, TASK, rows)).method == kept


def test_what_is_left_out_follows_the_kind_of_task() -> None:
    gate = {"max_drop": 0.01, "margin": 0.02, "max_flips": 0.02}
    expected = {"device": "cpu", "methods": ["dynamic", "static"], "calibration_examples": 256, **gate}
    assert resolved(QuantizeRecipe(), "classification") == expected
    limits = {"max_drop": 0.5, "margin": 0.7, "max_flips": 1.0}
    of_translation = {"device": "cpu", "methods": ["dynamic"], "shortlist": 0, **limits}
    assert resolved(QuantizeRecipe(max_drop=0.5), "translation") == of_translation
