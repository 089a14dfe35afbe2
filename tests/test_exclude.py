"""Products that stay float: the named ones, and the fewest that a gate is passed with. Models are broken on purpose.

What is broken answers as before in float. `large`: a channel of what attention finds is multiplied by a power of two,
and the weights that read it have the inverse: an outlier channel, which smoothing cures. `shifted`: constants are added
to some channels, and taken away by the bias that follows: handing these to the weights makes outliers of them there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import write_toy_csv
from onnx import TensorProto
from test_encoder_graph import logits as answers
from test_encoder_graph import torch_logits
from test_quantize import TASK, dataset, split, trained
from test_translation_int8 import logits as translated
from tiny_models import tiny_batch, tiny_model
from translation_models import tiny_translator

from compress.cli import compress
from compress.quantization import int8
from compress.quantization.forms import check_names, counts
from compress.quantization.operators import OUTPUT
from compress.quantization.products import count_products
from compress.quantization.quantize import quantize, resolved
from compress.quantization.scan import in_words, scan_bundle
from compress.quantization.translation_int8 import quantize_translation
from compress.quantization.weight_only import weight_only
from compress.steps import made_of
from distill.checkpoint import save
from distill.errors import BundleError, GateError, RecipeError
from distill.recipe import QuantizeRecipe, parse
from export.bundle import Bundle, read_bundle
from export.graph import export, to_onnx
from export.graphs.plan import has_plan
from export.runtime import load
from export.seq2seq.build import build
from export.seq2seq.weights import read_model

GATE: dict[str, Any] = {"max_drop": 0.05, "margin": 0.1, "max_flips": 0.1, "calibration_examples": 16}


def enlarge(model: Any) -> None:
    """Make an outlier of one channel in each layer."""
    for layer in model.bert.encoder.layer:
        layer.attention.self.value.weight[5] *= 2.0**12
        layer.attention.self.value.bias[5] *= 2.0**12
        layer.attention.output.dense.weight[:, 5] /= 2.0**12


def shift(model: Any) -> None:
    """Add constants to some channels in each layer."""
    import torch

    constants = torch.tensor([3600.0, -2222.0, 1333.3, 3111.7])
    for layer in model.bert.encoder.layer:
        layer.attention.self.value.bias[:4] += constants
        layer.attention.output.dense.bias -= layer.attention.output.dense.weight[:, :4] @ constants


@pytest.fixture(scope="module")
def bundles(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A whole model and the broken ones, each as a checkpoint and an fp32 bundle."""
    import torch

    found = {}
    for name, change in (("whole", None), ("large", enlarge), ("shifted", shift)):
        model, tokenizer = trained(tiny_encoder)
        if change is not None:
            with torch.no_grad():
                change(model)
        folder = tmp_path_factory.mktemp(name)
        save(model, tokenizer, TASK, folder / "checkpoint")
        found[name] = export(folder / "checkpoint", folder / "fp32", opset=20, atol=1e-2, examples=split(20, 4))
    return found


BROKEN = [f"encoder.{layer}.attention.out" for layer in range(4)]


def settings(**given: Any) -> QuantizeRecipe:
    return QuantizeRecipe.model_validate(GATE | given)


@pytest.mark.parametrize("name", ["large", "shifted"])
def test_what_is_broken_answers_as_before_in_float(name: str, bundles: dict[str, Bundle]) -> None:
    texts = split(30, 9).texts
    whole, other = (load(bundles[each].folder, threads=1).logits(texts) for each in ("whole", name))
    np.testing.assert_allclose(whole, other, atol=1e-2)


# --- the story: fails plain, is explained, is mended ----------------------------------------------


@pytest.mark.parametrize("method", ["dynamic", "static"])
@pytest.mark.parametrize(("name", "plain"), [("large", {"smooth": False, "exclude": []}), ("shifted", {"exclude": []})])
def test_plain_int8_fails_the_gate(
    name: str, plain: dict[str, Any], method: str, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    with pytest.raises(GateError, match="more than max_drop"):
        quantize(bundles[name], tmp_path / "int8", dataset(), settings(methods=[method], **plain))
    quantize(bundles["whole"], tmp_path / "whole", dataset(), settings(methods=[method], **plain))


def test_smoothing_mends_outlier_channels(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    made = quantize(bundles["large"], tmp_path / "int8", dataset(), settings(exclude=[]))
    assert str(made.products) == "19 of 19 products quantized"


@pytest.mark.parametrize("method", ["dynamic", "static"])
@pytest.mark.parametrize(("name", "plain", "tries"), [("large", {"smooth": False}, [1]), ("shifted", {}, [1, 2, 4])])
def test_the_fewest_products_that_pass_stay_float(
    name: str, plain: dict[str, Any], tries: list[int], method: str, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    made = quantize(bundles[name], tmp_path / "int8", dataset(), settings(methods=[method], **plain))
    found = made.bundle.details["quantization"]
    least = tries[-1]
    assert found["products"] == f"{19 - least} of 19 products quantized"
    assert len(found["left_float"]) == least and set(found["left_float"]) <= set(BROKEN)
    assert all(why.startswith("int8 error ") and "times the median" in why for why in found["left_float"].values())
    labels = [method, *(f"{method}, {count} product{'s' * (count > 1)} float" for count in tries)]
    states = [found["tried"][label]["gate"]["state"] for label in labels]
    assert states == ["rejected"] * len(tries) + ["passed"] and set(found["tried"]) == set(labels)
    assert [len(found["tried"][label]["left_float"]) for label in labels[1:]] == tries
    card = (made.bundle.folder / "README.md").read_text()
    lines = [line for line in card.splitlines() if line.startswith("| quantization.left_float.")]
    assert len(lines) == least and all("int8 error" in line for line in lines)
    said = [f"left float: {product}: {why}" for product, why in found["left_float"].items()]
    notes = made_of(made.bundle.folder)
    assert notes[0] == f"int8 {method}: {found['products']}" and sorted(notes[1:-1]) == sorted(said)


def test_what_passes_whole_is_not_scanned(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    found = quantize(bundles["whole"], tmp_path / "int8", dataset(), settings()).bundle.details["quantization"]
    assert set(found["tried"]) == {"dynamic", "static"}
    assert "left_float" not in found


def test_named_products_stay_float(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    made = quantize(bundles["shifted"], tmp_path / "int8", dataset(), settings(exclude=BROKEN, methods=["dynamic"]))
    found = made.bundle.details["quantization"]
    assert found["left_float"] == dict.fromkeys(BROKEN, "named in quantize.exclude")
    assert set(found["tried"]) == {"dynamic, 4 products float"}
    assert str(made.products) == "15 of 19 products quantized"


def test_unknown_names_are_refused_with_the_nearest(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"quantize\.exclude") as caught:
        quantize(bundles["whole"], tmp_path / "int8", dataset(), settings(exclude=["encoder.1.dwon", "encoder.1.up"]))
    assert len(caught.value.problems) == 1
    assert "encoder.1.dwon: there is no such product; did you mean encoder.1.down" in caught.value.problems[0]
    assert not list(tmp_path.iterdir())
    with pytest.raises(RecipeError, match="did you mean a, b, c"):
        check_names(["far away"], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("products", "expected"),
    [(3, ()), (4, (1,)), (8, (1, 2)), (19, (1, 2, 4)), (27, (1, 2, 4, 6)), (36, (1, 2, 4, 8, 9)), (0, ())],
)
def test_how_many_are_tried(products: int, expected: tuple[int, ...]) -> None:
    assert counts(products) == expected


# --- every form knows how to leave products float -------------------------------------------------


def kinds_of_weights(graph: onnx.ModelProto) -> dict[str, int]:
    return {value.name: value.data_type for value in graph.graph.initializer if len(value.dims) == 2}


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("form", ["dynamic", "static", "symmetric"])
def test_named_products_are_float_in_the_file(form: str, opset: int) -> None:
    model, batch = tiny_model("bert", layers=2), tiny_batch(4, 9)
    graph = to_onnx(model, opset)
    assert has_plan(graph) == (opset == 20)
    stem = "encoder.1." if opset == 20 else "bert.encoder.layer.1."
    names = {stem + name for name in (("up", "down") if opset == 20 else ("intermediate.dense", "output.dense"))}
    whole = {name: value.numpy() for name, value in batch.items()} | {
        "token_type_ids": np.zeros(batch["input_ids"].shape, np.int64)
    }
    rest = {} if form == "dynamic" else {"batches": [{each.name: whole[each.name] for each in graph.graph.input}]}
    before, after = (getattr(int8, form)(graph, **rest, left_float=each) for each in ((), names))
    found = kinds_of_weights(after)
    assert all(found[f"{name}.weight"] == TensorProto.FLOAT for name in names)
    assert not any(f"{name}.weight" in kinds_of_weights(before) for name in names) or opset == 20
    counted = [count_products(each.graph) for each in (before, after)]
    assert counted[0].quantized == counted[0].total == counted[1].total == counted[1].quantized + 2
    np.testing.assert_allclose(answers(after, batch), torch_logits(model, batch), atol=1)
    assert not np.array_equal(answers(after, batch), answers(before, batch))


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_alone_may_stay_float_too(bits: int) -> None:
    graph = weight_only(to_onnx(tiny_model("bert"), 20), bits, frozenset(["encoder.0.up", "head.out"]))
    assert str(count_products(graph.graph)) == "17 of 19 products quantized"


@pytest.mark.parametrize("kind", ["marian", "t5"])
@pytest.mark.parametrize("form", ["dynamic", "int8-weights"])
def test_translation_with_float_products(kind: str, form: str) -> None:
    model = tiny_translator(kind, **({"initializer_factor": 0.3} if kind == "t5" else {}))
    exact = build(*read_model(model, 40), 20)
    every = frozenset(name.removesuffix(".weight") for name, kind in kinds_of_weights(exact).items())
    names = frozenset(["encoder.0.up", "decoder.1.cross.query", OUTPUT])

    def made(left: frozenset[str]) -> onnx.ModelProto:
        return quantize_translation(exact, left_float=left) if form == "dynamic" else weight_only(exact, 8, left)

    assert str(count_products(made(names).graph)) == "23 of 26 products quantized"
    assert kinds_of_weights(made(names))["encoder.0.up.weight"] == TensorProto.FLOAT
    wanted = translated(exact, model)
    np.testing.assert_allclose(translated(made(every | {OUTPUT}), model), wanted, atol=1e-4)
    assert np.abs(translated(made(frozenset()), model) - wanted).max() > 1e-3


# --- the recipe and the command -------------------------------------------------------------------


def test_older_results_stand_with_the_defaults() -> None:
    before = set(resolved(QuantizeRecipe(), "classification"))
    assert not before & {"exclude", "smooth", "ranges", "percentile"}
    for changed in ({"exclude": []}, {"exclude": ["a"]}, {"smooth": False}, {"ranges": "mse"}, {"percentile": 99}):
        found = resolved(QuantizeRecipe.model_validate(changed), "classification")
        assert set(found) - before == set(changed)
    assert "smooth" not in resolved(QuantizeRecipe(smooth=False), "translation")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"exclude": "encoder.1.up"}, "quantize.exclude"),
        ({"exclude": ["a", "a"]}, "expected different values"),
        ({"exclude": ["a"], "device": "cuda"}, "exclude goes with int8"),
        ({"ranges": "entropy"}, "quantize.ranges"),
        ({"percentile": 50}, "quantize.percentile"),
    ],
)
def test_sections_that_do_not_fit(section: dict[str, Any], problem: str) -> None:
    recipe = {"name": "toy", "data": {"source": "a.csv"}, "teacher": {"model": "b"}, "quantize": section}
    with pytest.raises(RecipeError) as caught:
        parse(recipe, "recipe.yaml")
    assert problem in str(caught.value)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with its rows, for bundles."""
    write_toy_csv(tmp_path / "toy.csv", 400)
    data = {"source": "toy.csv", "allow_leakage": True, "split": {"validation": 0.4, "test": 0.1}}
    value = {"name": "toy", "data": data, "task": {"max_length": 32}, "teacher": {"model": "none"}, "quantize": GATE}
    (tmp_path / "recipe.yaml").write_text(json.dumps(value))
    return tmp_path / "recipe.yaml"


def test_the_command_names_what_is_broken(recipe: Path, bundles: dict[str, Bundle]) -> None:
    words = ["scan", str(bundles["shifted"].folder), "--recipe", str(recipe)]
    target = recipe.parent / "scan.json"
    done = CliRunner().invoke(compress, [*words, "-o", str(target)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("product "))
    assert sorted(line.split()[0] for line in lines[head + 1 : head + 5]) == BROKEN
    assert len(lines[head + 1 :]) == 19
    assert lines[head + 1].endswith("int8; float in the try with 1, if the gate rejects all")
    assert lines[head + 4].endswith("try with 4, if the gate rejects all") and lines[-1].endswith("  int8")
    rows = json.loads(target.read_text())["rows"]
    assert [row["name"] for row in rows] == [line.split()[0] for line in lines[head + 1 :]]
    assert rows[3]["error"] > 1 > 100 * rows[4]["error"]
    assert rows[3]["weight_outlier"] > 100 and rows[3]["form"].startswith("int8; float")
    again = CliRunner().invoke(compress, [*words, "-o", str(target)])
    assert isinstance(again.exception, RecipeError) and "exists already" in str(again.exception)
    named = ["--json", "--method", "static", "--set", f"quantize.exclude=[{BROKEN[0]}]"]
    found = json.loads(CliRunner().invoke(compress, [*words, *named]).output)
    assert found["method"] == "static" and found["texts"] == GATE["calibration_examples"]
    forms = {row["name"]: row["form"] for row in found["rows"]}
    assert forms.pop(BROKEN[0]) == "float: named in quantize.exclude" and set(forms.values()) == {"int8"}


def test_what_cannot_be_scanned(recipe: Path, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    read = parse(json.loads(recipe.read_text()), "recipe.yaml")
    made = quantize(bundles["whole"], tmp_path / "int8", dataset(), settings()).bundle
    with pytest.raises(BundleError, match="int8-dynamic already: a scan needs the fp32 bundle"):
        scan_bundle(made.folder, read, recipe.parent)
    for device, section in (("cuda", {"device": "cuda"}), ("cpu", {"methods": ["int4-weights"]})):
        other = read.model_copy(update={"quantize": settings(**section)})
        with pytest.raises(RecipeError, match=f"no int8 to scan for classification on {device}; take --method"):
            scan_bundle(bundles["whole"].folder, other, recipe.parent)
        assert "where dynamic int8 rounds" in in_words(
            scan_bundle(bundles["whole"].folder, other, recipe.parent, "dynamic"), settings(**section)
        )


def test_the_command_leaves_with_3_and_a_mended_bundle_passes(
    recipe: Path, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    source = shutil.copytree(bundles["shifted"].folder, tmp_path / "fp32")
    words = ["quantize", str(source), "--recipe", str(recipe)]
    done = CliRunner().invoke(compress, [*words, "-o", str(tmp_path / "plain"), "--set", "quantize.exclude=[]"])
    assert isinstance(done.exception, GateError) and done.exception.exit_code == 3
    done = CliRunner().invoke(compress, [*words, "-o", str(tmp_path / "mended")])
    assert done.exit_code == 0, done.output
    assert "15 of 19 products quantized" in done.output
    assert sorted(read_bundle(tmp_path / "mended").details["quantization"]["left_float"]) == BROKEN
