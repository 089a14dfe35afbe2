"""Translation bundles before the gate: judged by BLEU against fp32 of the same model, kept or rejected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_bytes import GOLDEN
from translation_models import TASK, toy_sources, write_translator

from compress.quantization.quantize import quantize
from compress.quantization.tasks.translation import answers
from distill.data import Dataset, Split
from distill.errors import DataError, GateError
from distill.files import hash_files
from distill.recipe import QuantizeRecipe
from distill.text_metrics import paired_difference
from export.bundle import Bundle, read_bundle
from export.graph import export
from export.runtime import Translator, load_as

ANYTHING = QuantizeRecipe(max_drop=100, margin=100)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny random model as fp32."""
    folder = tmp_path_factory.mktemp("translators")
    rows = Split(toy_sources(20), None, ())
    return export(write_translator(folder / "checkpoint"), folder / "fp32", opset=20, atol=1e-4, examples=rows)


@pytest.fixture(scope="module")
def dataset(fp32: Bundle) -> Dataset:
    """Sentences whose references are what fp32 writes: its own BLEU is 100."""
    sources = toy_sources(40)
    rows = Split(sources, None, (), tuple(each.text for each in load_as(Translator, fp32.folder)(sources)))
    return Dataset(TASK, {"train": rows, "validation": rows, "test": rows}, "0" * 64, {}, ())


def test_an_int8_bundle_says_what_it_lost(fp32: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    result = quantize(fp32, tmp_path / "bundle", dataset, ANYTHING)
    made, rows = read_bundle(tmp_path / "bundle"), dataset.splits["validation"]
    assert (result.method, made.precision) == ("dynamic", "int8-dynamic")
    assert set(made.files) == {"onnx/model_int8.onnx", "tokenizer.json", "config.json", "README.md"}
    assert (made.details["decoding"], made.details["reduce_range"]) == (fp32.details["decoding"], True)
    found = made.details["quantization"]
    assert set(found) == {"method", "products", "bytes", "tried"}
    assert found["products"] == "26 of 26 products quantized"
    assert found["bytes"]["int8"]["decoder layers"] < found["bytes"]["fp32"]["decoder layers"]
    before, after = answers(fp32.folder, rows, False), answers(made.folder, rows, False)
    drop = paired_difference("bleu", list(before), list(after), rows.targets or ())
    figures = found["tried"]["dynamic"]
    assert figures["gate"]["drop"]["value"] == pytest.approx(drop.value)
    assert figures["validation"]["value"] == pytest.approx(100 - drop.value)
    assert figures["agreement"] == np.mean(before == after) == 1 - drop.flipped / drop.n
    assert 0 <= figures["gate"]["batch_flips"] < 1


@pytest.mark.parametrize(
    ("device", "methods", "precision", "least"),
    [
        ("cuda", None, "fp16", 0.9),
        ("cpu", ["int8-weights"], "int8-weights", 0.3),
        ("cpu", ["int4-weights"], "int4-weights", 0),
    ],
)
def test_forms_for_devices(
    device: str, methods: list[str] | None, precision: str, least: float, fp32: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    settings = QuantizeRecipe.model_validate({"device": device, "methods": methods, "max_drop": 100, "margin": 100})
    made = quantize(fp32, tmp_path / "bundle", dataset, settings).bundle
    assert (made.precision, made.device) == (precision, device)
    assert made.details["quantization"]["products"] == "26 of 26 products quantized"
    sources = dataset.splits["test"].texts
    before, after = load_as(Translator, fp32.folder), load_as(Translator, made.folder)
    for beams in (1, 3):
        pairs = zip(before(sources, beams=beams), after(sources, beams=beams), strict=True)
        assert np.mean([a.text == b.text for a, b in pairs]) >= least


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (QuantizeRecipe(), "more than max_drop 0.3"),
        (QuantizeRecipe(max_drop=99, margin=0.5), None),
        (QuantizeRecipe(max_drop=99, margin=0.5, max_flips=0), "of the answers depend on the rest of the batch"),
    ],
)
def test_row_54_the_gate_is_in_points_of_bleu(
    fp32: Bundle, dataset: Dataset, tmp_path: Path, settings: QuantizeRecipe, said: str | None
) -> None:
    before = hash_files(fp32.folder)
    if said is None:
        quantize(fp32, tmp_path / "bundle", dataset, settings)
        return
    for _ in range(2):  # the second time takes the place of the first
        with pytest.raises(GateError, match=said) as caught:
            quantize(fp32, tmp_path / "bundle", dataset, settings)
    assert caught.value.exit_code == 3
    assert read_bundle(tmp_path / "rejected-bundle").details["quantization"]["tried"]["dynamic"]["gate"]["reasons"]
    assert [path.name for path in tmp_path.iterdir()] == ["rejected-bundle"]
    assert hash_files(fp32.folder) == before


def test_row_55_too_few_sentences_to_decide(fp32: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    few = replace(dataset.splits["validation"], texts=("il",), targets=("la",))  # both models score nothing
    with pytest.raises(GateError, match="undecided: n=1, need about 300; bleu drops by"):
        quantize(fp32, tmp_path / "bundle", replace(dataset, splits={**dataset.splits, "validation": few}), ANY_LITTLE)


ANY_LITTLE = QuantizeRecipe(max_drop=0.5, margin=0.5)


def test_what_is_not_there_or_of_another_kind(fp32: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    nothing = replace(dataset, splits={**dataset.splits, "validation": Split((), None, ())})
    with pytest.raises(DataError, match="validation rows"):
        quantize(fp32, tmp_path / "bundle", nothing, ANYTHING)
    with pytest.raises(DataError, match="the bundle is for classification, the recipe's data are for translation"):
        quantize(read_bundle(GOLDEN), tmp_path / "bundle", dataset, ANYTHING)
