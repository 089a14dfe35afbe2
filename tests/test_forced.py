"""Translation models in one pass: the same logits as step by step, with every product in sight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_quantize_translation import dataset, fp32
from translation_models import MODELS, VOCABULARY, tiny_translator

from compress.quantization.forced import forced, teacher_forced
from compress.quantization.forms import scan_form
from compress.quantization.operators import OUTPUT
from compress.quantization.products import count_products
from compress.quantization.quantize import quantize
from compress.quantization.tasks.translation import forms
from compress.quantization.watch import products, watch
from distill.data import Dataset
from distill.errors import DataError, GateError, RecipeError
from distill.recipe import QuantizeRecipe
from export.bundle import Bundle, read_bundle
from export.decoding import Decoding
from export.seq2seq.build import build
from export.seq2seq.weights import read_model

__all__ = ["dataset", "fp32"]
RULES = Decoding(start=1, end=2, pad=0, max_length=6)


@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_torch(kind: str) -> None:
    model = tiny_translator(kind)
    graph = forced(build(*read_model(model, 40), 20))
    generator = np.random.default_rng(2)
    sources, targets = (
        [generator.integers(3, VOCABULARY, size).tolist() for size in sizes] for sizes in ((7, 4), (3, 5))
    )
    rules = replace(RULES, start=model.config.decoder_start_token_id)
    batches = teacher_forced(list(zip(sources, targets, strict=True)), rules)
    for batch, found in zip(batches, watch(graph, ["step.logits"], batches), strict=True):
        ids, mask, target = (torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask", "target_ids"))
        with torch.inference_mode():
            wanted = model(ids, mask, decoder_input_ids=target).logits[:, -1].numpy()
        np.testing.assert_allclose(found["step.logits"], wanted, atol=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_every_product_is_seen_once(kind: str) -> None:
    plan, weights = read_model(tiny_translator(kind), 40)
    graph = build(plan, weights, 20)
    found = [each.name for each in products(forced(graph), {plan.output_table: OUTPUT})]
    assert len(set(found)) == len(found) == count_products(graph.graph).total
    assert found[-1] == OUTPUT and {"encoder.0.attention.qkv", "decoder.memory", "decoder.1.cross.query"} < set(found)


@pytest.mark.parametrize(
    ("number", "target", "rules", "expected"),
    [
        (0, [7, 8, 2], RULES, [1]),
        (1, [7, 8, 2], RULES, [1, 7]),
        (2, [7, 8, 2], RULES, [1, 7, 8]),
        (3, [7, 8, 2], RULES, [1]),  # round again
        (7, [7, 8, 9, 10, 11, 12, 13, 2], RULES, [1, 7]),  # no more than may be written
        (1, [7, 8, 2], Decoding(1, 2, 0, 6, forced_start=5), [1, 5, 7]),
    ],
)
def test_targets_are_cut_off_at_all_places(
    number: int, target: list[int], rules: Decoding, expected: list[int]
) -> None:
    batch = teacher_forced([([3, 4, 2], target)] * (number + 1), rules)[number]
    assert batch["target_ids"].tolist() == [expected]
    assert batch["positions"].tolist() == list(range(len(expected)))
    assert (batch["input_ids"].tolist(), batch["attention_mask"].tolist()) == ([[3, 4, 2]], [[1, 1, 1]])


def test_a_scan_and_the_products_that_it_leaves_float(fp32: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    settings = QuantizeRecipe()
    made = forms(onnx.load(fp32.model_path), fp32, dataset, settings)
    found = scan_form(made.watched(), "dynamic", settings)
    assert (len(found.rows), found.texts) == (26, 40)
    errors = [row.error for row in found.rows]
    assert errors == sorted(errors, reverse=True) and 0 < errors[-1] < errors[0] < 0.1
    with pytest.raises(RecipeError, match="not int4-weights"):
        scan_form(made.watched(), "int4-weights", settings)
    with pytest.raises(GateError, match="dynamic, 6 products float: bleu drops"):
        quantize(fp32, tmp_path / "bundle", dataset, settings)
    tried = read_bundle(tmp_path / "rejected-bundle").details["quantization"]["tried"]
    names = [row.name for row in found.rows]
    assert [each.get("left_float", []) for each in tried.values()] == [names[:count] for count in (0, 1, 2, 4, 6)]


def test_no_rows_to_read(fp32: Bundle, dataset: Dataset) -> None:
    none = replace(dataset.splits["train"], texts=(), targets=())
    empty = replace(dataset, splits={**dataset.splits, "train": none})
    with pytest.raises(DataError, match="a scan reads training rows"):
        forms(onnx.load(fp32.model_path), fp32, empty, QuantizeRecipe()).watched()
