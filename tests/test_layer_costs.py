"""What each layer costs: on graphs made by hand, and on tiny bundles in fp32 and int8."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from onnx import TensorProto, helper, numpy_helper
from tiny_models import KINDS, tiny_model
from translation_models import MODELS, tiny_translator, toy_sources, write_translator

from bench.candidates import from_bundle, from_folder
from bench.graph_layers import StoredLayer, naming_of, node_layers, stored_layers
from bench.layer_costs import Asked, Costs, layer_times, measure_layers, read_lines
from bench.layer_names import HEAD, MEMORY, OUTPUT, REST, layer_of, order
from bench.layer_report import as_json, layers_of_folders, print_table
from bench.profiled import BETWEEN, Profile, node_times, profile_in_turns
from bench.with_onnxruntime import backend_of
from compress.quantization import int8
from compress.quantization.folder import seal_quantized, write_parts
from compress.quantization.products import count_products
from compress.quantization.translation_int8 import quantize_translation, write_int8
from compress.quantization.weight_only import weight_only
from distill.dataset import Split
from distill.errors import DataError
from distill.files import new_folder
from distill.layers import layers
from export.bundle import Bundle, read_bundle
from export.graph import export, to_onnx
from export.graphs.plan import has_plan
from export.graphs.products import Zeros, nodes_of, zeros_by_product
from export.runtime import load
from export.seq2seq.build import build
from export.seq2seq.weights import read_model

NAMES = [
    ("encoder.11.up.weight.scale", "encoder.11"),
    ("decoder.0.cross_norm.bias", "decoder.0"),
    ("decoder.memory.weight", MEMORY),
    ("encoder.norm.weight", "encoder.2"),
    ("decoder.norm.bias", "decoder.1"),
    ("embedding.table", "embedding"),
    ("embedding.projection.weight", "embedding"),
    ("decoder.embedding.table", "embedding"),
    ("encoder.positions", "embedding"),
    ("decoder.distances", "embedding"),
    ("output.embedding.table", OUTPUT),
    ("output.bias", OUTPUT),
    ("source_matrix", OUTPUT),
    ("shortlist.near", OUTPUT),
    ("head.dense.weight", HEAD),
    ("bert.encoder.layer.3.attention.self.query.weight_quantized", "encoder.3"),
    ("distilbert.transformer.layer.0.ffn.lin1.bias", "encoder.0"),
    ("bert.embeddings.word_embeddings.weight", "embedding"),
    ("bert.pooler.dense.bias", HEAD),
    ("pre_classifier.weight", HEAD),
    ("source_keys.0", None),
    ("whole.0.0.4.-1", None),
    ("real.0.5", None),
]


@pytest.mark.parametrize(("name", "layer"), NAMES)
def test_names(name: str, layer: str | None) -> None:
    assert layer_of(name, {"encoder": "encoder.2", "decoder": "decoder.1"}) == layer


def test_layers_stand_in_the_order_of_the_model() -> None:
    names = ["embedding", "encoder.2", "encoder.10", MEMORY, "decoder.0", "decoder.1", HEAD, OUTPUT, REST]
    assert sorted(reversed(names), key=order) == names


def by_hand() -> onnx.ModelProto:
    """A table of 5 rows, a layer whose float product stands in both branches of an `If`, and a head in int8."""
    weights = {
        "embedding.table": np.ones((5, 2), np.float32),
        "encoder.0.up.weight": np.array([[1, 0, 0], [0, 2, 3]], np.float32),
        "encoder.0.up.bias": np.ones(3, np.float32),
        "head.out.weight": np.array([[1, 0], [0, 0], [0, 3]], np.int8),
        "head.out.weight.scale": np.ones(2, np.float32),
        "whole.1": np.array([1], np.int64),
    }
    node = helper.make_node
    branches = [
        helper.make_graph(
            [
                node("MatMul", ["states", "encoder.0.up.weight"], [f"{name}.product"], name=f"{name}/0_MatMul"),
                node("Add", [f"{name}.product", "encoder.0.up.bias"], [f"{name}.states"], name=f"{name}/1_Add"),
            ],
            name, [], [helper.make_tensor_value_info(f"{name}.states", TensorProto.FLOAT, None)],
        )
        for name in ("even", "padded")
    ]  # fmt: skip
    nodes = [
        node("Cast", ["flag"], ["chosen"], name="cast", to=TensorProto.BOOL),
        node("Gather", ["embedding.table", "ids"], ["states"], name="look_up"),
        node("If", ["chosen"], ["up"], name="either", then_branch=branches[0], else_branch=branches[1]),
        node("Relu", ["up"], ["active"], name=""),
        node("Sum", ["active", "active"], ["twice"], name="sum"),
        node("DynamicQuantizeMatMul", ["twice", "head.out.weight", "head.out.weight.scale"], ["logits"], name="out",
             domain="com.microsoft"),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("ids", "flag")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "by hand", inputs, outputs, stored))


def test_what_a_graph_by_hand_stores() -> None:
    assert stored_layers(by_hand()) == [
        StoredLayer("embedding", bytes=40, parameters=10),
        StoredLayer("encoder.0", bytes=24 + 12, parameters=9, products=1, zeros=0.5),
        StoredLayer(HEAD, bytes=6 + 8, parameters=6, products=1, int8_products=1, zeros=4 / 6),
        StoredLayer(REST, bytes=8),
    ]


def test_zeros_by_product() -> None:
    assert zeros_by_product(by_hand().graph) == {"encoder.0.up.weight": Zeros(3, 6), "head.out.weight": Zeros(4, 6)}


def test_nodes_without_weights_go_with_what_they_read() -> None:
    model = by_hand()
    assert node_layers(model.graph, naming_of(model)) == {
        "cast": REST,
        "look_up": "embedding",
        "even/0_MatMul": "encoder.0",
        "even/1_Add": "encoder.0",
        "padded/0_MatMul": "encoder.0",
        "padded/1_Add": "encoder.0",
        "either": REST,
        "sum": "encoder.0",
        "out": HEAD,
    }


def test_what_follows_a_weight_without_a_name_is_of_no_layer() -> None:
    model = by_hand()
    model.graph.initializer[1].name = "val_87"
    for branch in (each.g for node in model.graph.node for each in node.attribute if each.HasField("g")):
        branch.node[0].input[1] = "val_87"
        branch.node[1].input[1] = "val_88"
    found = node_layers(model.graph, naming_of(model))
    assert found["even/0_MatMul"] == found["even/1_Add"] == found["sum"] == REST
    assert (found["look_up"], found["out"]) == ("embedding", HEAD)


def test_one_name_for_nodes_of_two_layers_says_nothing() -> None:
    model = by_hand()
    for node in model.graph.node:
        node.name = "x" if node.name in ("look_up", "sum") else node.name
    assert node_layers(model.graph, naming_of(model))["x"] == REST


def event(name: str, start: int, duration: int, category: str = "Node") -> dict[str, Any]:
    return {"name": name, "ts": start, "dur": duration, "cat": category}


def test_inner_nodes_are_not_counted_twice() -> None:
    events = [  # in the order in which they end
        event("a_kernel_time", 102, 10),
        event("b_kernel_time", 115, 20),
        event("c_kernel_time", 140, 5),
        event("if_kernel_time", 112, 50),
        event("SequentialExecutor::Execute", 101, 97, "Session"),
        event("model_run", 100, 100, "Session"),
        event("a_kernel_time", 300, 7),
        event("model_run", 300, 30, "Session"),
    ]
    first, second = node_times(events)
    assert first == pytest.approx({BETWEEN: 0.040, "a": 0.010, "if": 0.025, "b": 0.020, "c": 0.005})
    assert second == pytest.approx({BETWEEN: 0.023, "a": 0.007})


def test_a_layer_takes_the_medians_of_its_nodes() -> None:
    model = by_hand()
    rounds = (
        {"look_up": 1.0, "even/0_MatMul": 2.0, "even/1_Add": 1.0, "out": 3.0, "cast": 5.0, BETWEEN: 1.0},
        {"look_up": 1.0, "even/0_MatMul": 9.0, "even/1_Add": 1.0, "out": 3.0, "cast": 5.0, BETWEEN: 1.0},
        {"look_up": 1.0, "even/0_MatMul": 2.0, "even/1_Add": 8.0, "out": 4.0, "cast": 5.0, BETWEEN: 1.0},
    )
    found = layer_times(Profile(rounds, model.graph, (9.0, 9.0, 9.0)), model)
    assert found == {"embedding": 1.0, "encoder.0": 3.0, HEAD: 3.0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["fp32", "dynamic", "8 bits", "4 bits"])
def test_every_form_of_a_classifier_has_the_parameters_of_torch(kind: str, form: str) -> None:
    model = tiny_model(kind)
    makers = {"dynamic": int8.dynamic, "8 bits": lambda g: weight_only(g, 8), "4 bits": lambda g: weight_only(g, 4)}
    graph = makers.get(form, lambda graph: graph)(to_onnx(model, 20))
    found = {each.layer: each for each in stored_layers(graph)}
    head = 16 * 16 + 16 + 16 * 3 + 3
    layer = 4 * (16 * 16 + 16) + 2 * 16 * 24 + 16 + 24 + 4 * 16
    assert [found[f"encoder.{n}"].parameters for n in range(4)] == [layer] * 4
    assert [(found[f"encoder.{n}"].heads, found[f"encoder.{n}"].neurons) for n in range(4)] == [(4, 24)] * 4
    assert found[HEAD].parameters == head
    left_out = 16 if "roberta" in kind else 0  # the position before the first token's
    assert sum(each.parameters for each in found.values()) == sum(p.numel() for p in model.parameters()) - left_out
    products = count_products(graph.graph)
    assert sum(each.products for each in found.values()) == products.total
    assert sum(each.int8_products for each in found.values()) == products.quantized


def test_a_graph_without_a_plan_tells_heads_by_its_shapes() -> None:
    batch = {name: np.ones((2, 8), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    model = tiny_model("bert", layers=2)
    layers(model)[0].keep({"heads": [0, 2, 3], "neurons": range(20)})
    graph = int8.static(to_onnx(model, 20), [batch])
    assert not has_plan(graph)
    found = {each.layer: each for each in stored_layers(graph)}
    assert [(found[f"encoder.{n}"].heads, found[f"encoder.{n}"].neurons) for n in range(2)] == [(3, 20), (4, 24)]
    assert sum(each.int8_products for each in found.values()) == sum(each.products for each in found.values()) == 11
    nodes = node_layers(graph.graph, naming_of(graph))
    assert sum(layer == REST for layer in nodes.values()) == 4  # the mask, and how many positions are read


def test_a_traced_graph_has_the_same_layers() -> None:
    model = tiny_model("bert", layers=2)
    model.config.hidden_act = "gelu_fast"  # type: ignore[union-attr]
    changed = type(model)(model.config).eval()  # type: ignore[operator]
    changed.load_state_dict(model.state_dict())
    traced = to_onnx(changed, 20)
    built = {each.layer: each for each in stored_layers(to_onnx(tiny_model("bert", layers=2), 20))}
    assert not has_plan(traced)
    for each in stored_layers(traced):
        if each.layer.startswith("encoder"):
            norms = 2 * 16  # their weights are ones here, which torch's exporter stores once for all norms
            assert (each.parameters, each.heads) == (built[each.layer].parameters - norms, 4)
            assert each.products == 6  # queries, keys and values stand apart


@pytest.mark.parametrize("kind", MODELS)
def test_translation_models(kind: str) -> None:
    fp32 = build(*read_model(tiny_translator(kind), 40), 20)
    int8_graph = quantize_translation(fp32)
    before, after = ({each.layer: each for each in stored_layers(graph)} for graph in (fp32, int8_graph))
    for graph in (fp32, int8_graph):
        found_layers = node_layers(graph.graph, naming_of(graph))
        for node in nodes_of(graph.graph):
            if node.op_type in ("Gemm", "DynamicQuantizeMatMul") and node.output[0].endswith(".logits"):
                assert found_layers[node.name] == OUTPUT
            if any(name.startswith("encoder.1.") for name in node.input):
                assert found_layers[node.name] == "encoder.1"
    assert list(before) == ["embedding", *(f"encoder.{n}" for n in range(3)), MEMORY, "decoder.0", "decoder.1", OUTPUT,
                            REST]  # fmt: skip
    for found, products in ((before, 0), (after, 26)):
        assert sum(each.int8_products for each in found.values()) == products
        assert [found[layer].products for layer in ("encoder.2", MEMORY, "decoder.1", OUTPUT)] == [4, 1, 6, 1]
        heads = 3 if "t5" in kind else 2
        assert (found["decoder.0"].heads, found["decoder.0"].cross_heads) == (heads, heads)
    assert [each.parameters for each in after.values()] == [each.parameters for each in before.values()]


def test_zeros_in_blocks_are_counted_without_what_fills_them_up() -> None:
    model = tiny_model("bert", layers=1)
    weight = model.get_parameter("bert.encoder.layer.0.intermediate.dense.weight")
    weight.data[:6] = 0
    for bits in (8, 4):
        found = zeros_by_product(weight_only(to_onnx(model, 20), bits).graph)["encoder.0.up.weight"]
        assert found.elements == 16 * 24
        assert 6 * 16 <= found.zeros < 6 * 16 + 18 * 16 * (0.05 if bits == 8 else 0.4)


def quantized(fp32: Bundle, target: Path) -> Bundle:
    """The int8 form of a classifier's bundle."""
    with new_folder(target) as folder:
        write_parts(folder, fp32, int8.dynamic(onnx.load(fp32.model_path)), "dynamic")
        seal_quantized(folder, fp32, "dynamic", dict(fp32.details))
    return read_bundle(target)


@pytest.fixture(scope="module")
def classifiers(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("classifiers")
    fp32 = export(tiny_checkpoint, folder / "fp32", opset=20, atol=1e-4, examples=Split(("a film", "a town"), None, ()))
    return [fp32.folder, quantized(fp32, folder / "int8").folder]


@pytest.fixture(scope="module")
def translators(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("translators")
    checkpoint, examples = write_translator(folder / "checkpoint"), Split(toy_sources(8), None, ())
    fp32 = export(checkpoint, folder / "fp32", opset=20, atol=1e-4, examples=examples)
    return [fp32.folder, write_int8(fp32, folder / "int8").folder]


def check(costs: list[Costs], names: list[str]) -> None:
    """What holds for any bundle."""
    for each in costs:
        rows, folder = each.rows, each.candidate.folder
        bundle = read_bundle(folder)
        assert [row.layer for row in rows] == names
        assert sum(row.bytes for row in rows) == each.file_bytes == bundle.model_path.stat().st_size
        products = count_products(onnx.load(bundle.model_path).graph)
        assert sum(row.products for row in rows) == products.total
        assert sum(row.int8_products for row in rows) == products.quantized
        assert all(row.ms > 0 for row in rows if row.layer != REST)
        timed = sum(row.ms for row in rows if row.layer != REST)
        assert sum(row.ms for row in rows) == pytest.approx(max(timed, each.plain_ms))
        assert sum(row.share for row in rows) == pytest.approx(1)
        assert all(row.runs == 3 for row in rows)


def test_tiny_classifiers(classifiers: list[Path]) -> None:
    costs = measure_layers([from_folder(folder) for folder in classifiers], Asked(batch=2, length=12, rounds=3))
    check(costs, ["embedding", "encoder.0", "encoder.1", HEAD, REST])
    assert [row.int8_products for row in costs[1].rows] == [0, 4, 5, 2, 0]
    assert {(row.batch, row.length, row.work) for each in costs for row in each.rows} == {(2, 12, "ids")}
    assert [row.parameters for row in costs[0].rows] == [row.parameters for row in costs[1].rows]


@pytest.mark.parametrize("texts", [(), toy_sources(7)])
def test_tiny_translators(translators: list[Path], texts: tuple[str, ...]) -> None:
    asked = Asked(length=64, rounds=3, texts=texts)
    costs = measure_layers([from_folder(folder) for folder in translators], asked)
    check(costs, ["embedding", *(f"encoder.{n}" for n in range(3)), MEMORY, "decoder.0", "decoder.1", OUTPUT, REST])
    assert {row.work for each in costs for row in each.rows} == {"text" if texts else "ids"}
    lengths = {row.length for each in costs for row in each.rows}
    read = [len(line.split()) + 1 for line in texts[:5]]  # a token a word, and the end
    assert lengths == ({round(sum(read) / 5)} if texts else {16})  # 16: as many as the model writes at most


def test_layers_take_less_than_the_profiled_run(classifiers: list[Path]) -> None:
    ids = np.full((1, 8), 5)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    models = [(load(folder, threads=1), lambda model: lambda: backend_of(model).run(batch)) for folder in classifiers]
    for profile, (model, _) in zip(profile_in_turns(models, 4), models, strict=True):
        graph = onnx.load(model.bundle.model_path)
        known = node_layers(profile.graph, naming_of(graph))
        assert len(profile.rounds) == len(profile.plain_ms) == 4
        for each in profile.rounds:
            assert set(each) - {BETWEEN} <= set(known)  # every node that was timed is one of the graph
            assert sum(time for name, time in each.items() if known.get(name, REST) != REST) <= sum(each.values())


def test_bundles_for_different_tasks_are_refused(classifiers: list[Path], translators: list[Path]) -> None:
    both = [from_bundle("a", classifiers[0]), from_bundle("b", translators[0])]
    with pytest.raises(DataError, match="one kind of task"):
        measure_layers(both, Asked(rounds=1))


def test_sentences(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one\n\n two \n", encoding="utf-8")
    assert read_lines(path) == ("one", " two ")
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="found none"):
        read_lines(path)
    with pytest.raises(DataError, match="a sentence a line"):
        read_lines(tmp_path)


def test_the_command(classifiers: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "layers.json"
    done = run("compress", "layers", *classifiers, "--length", 8, "--rounds", 2, "-o", target)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "fp32 onnxruntime fp32 → int8 onnxruntime int8 dynamic"
    assert lines[2].startswith("| layer | heads | neurons | MB |")
    assert any(line.startswith("| encoder.1 | 4 | 64 | ") and "0 of 5 → 5 of 5" in line for line in lines)
    found = json.loads(target.read_text(encoding="utf-8"))
    assert [each["model"] for each in found["bundles"]] == ["fp32", "int8"]
    assert len(found["layers"]) == 2 * 5 and found["removed"] == []
    assert {"model", "precision", "layer", "bytes", "parameters", "products", "int8_products", "ms", "share"} <= set(
        found["layers"][0]
    )


def test_names_tell_bundles_apart(classifiers: list[Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle").symlink_to(classifiers[0])
    copies = [shutil.copytree(classifiers[0], tmp_path / name / "copy") for name in ("a", "b")]
    found = layers_of_folders(copies, Asked(length=8, rounds=1))
    assert [each.candidate.model for each in found] == ["a/copy", "b/copy"]
    with pytest.raises(DataError, match="found one twice"):
        layers_of_folders([tmp_path / "a" / "bundle", tmp_path / "b" / "bundle"], Asked())


@pytest.mark.parametrize("width", [80, 160])
def test_on_a_terminal(classifiers: list[Path], capsys: pytest.CaptureFixture[str], width: int) -> None:
    costs = layers_of_folders(classifiers, Asked(length=8, rounds=1))
    print_table(costs, width)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith(" encoder.0 ") or line.startswith("encoder.0 ") for line in lines)
    assert any(line.startswith("- rest: ") for line in lines)
    assert ("0 of 4 → 4 of 4" in "".join(lines)) == (width == 160)
    assert json.loads(json.dumps(as_json(costs), allow_nan=False))["environment"]["threads"] == 1
