"""The int8 form of translation graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from translation_models import MODELS, VOCABULARY, opened, source_batch, tiny_translator, toy_sources, write_translator

from compress.quantization.operators import MOST, Fused
from compress.quantization.products import count_products
from compress.quantization.translation_int8 import quantize_translation, write_int8
from distill.data import Split
from distill.errors import BundleError
from export.graph import export
from export.runtime import Translator, load_as
from export.seq2seq.build import build
from export.seq2seq.weights import read_model


def logits(graph: onnx.ModelProto, model: Any) -> Any:
    """Logits of a graph: the first three target tokens at once, then one by one."""
    ids, mask = source_batch(model)
    target = np.random.default_rng(1).integers(3, VOCABULARY, (3, 8))
    step = opened(graph).start(ids, mask)
    return np.stack([step(target[:, :3]), *(step(target[:, position]) for position in range(3, 8))], 1)


def torch_logits(model: Any) -> Any:
    """The same from torch."""
    ids, mask = (torch.from_numpy(each) for each in source_batch(model))
    target = torch.from_numpy(np.random.default_rng(1).integers(3, VOCABULARY, (3, 8)))
    with torch.inference_mode():
        return model(ids, mask, decoder_input_ids=target).logits[:, 2:].numpy()


@pytest.mark.parametrize("kind", MODELS)
def test_fused_operators_answer_like_torch(kind: str) -> None:
    model = tiny_translator(kind)
    np.testing.assert_allclose(logits(build(*read_model(model, 40), 20, Fused), model), torch_logits(model), atol=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_int8_is_close(kind: str) -> None:
    model = tiny_translator(kind, **({"initializer_factor": 0.3} if "t5" in kind else {}))  # larger ones are chaotic
    found, wanted = logits(quantize_translation(build(*read_model(model, 40), 20)), model), torch_logits(model)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("kind", "products"), [("marian", 26), ("t5", 26), ("t5-gated", 26)])
def test_every_product_with_a_stored_weight_is_int8(kind: str, products: int) -> None:
    graph = build(*read_model(tiny_translator(kind), 40), 20)
    assert str(count_products(graph.graph)) == f"0 of {products} products quantized"
    assert str(count_products(quantize_translation(graph).graph)) == f"{products} of {products} products quantized"


def test_the_embedding_matrix_is_stored_once_as_int8() -> None:
    model = tiny_translator("marian")
    stored = {value.name: value for value in quantize_translation(build(*read_model(model, 40), 20)).graph.initializer}
    tables = [value for value in stored.values() if VOCABULARY in value.dims and len(value.dims) == 2]
    assert sorted((value.name, tuple(value.dims)) for value in tables) == [
        ("embedding.table", (VOCABULARY, 16)),
        ("embedding.table.row_scale", (VOCABULARY, 1)),
    ]
    matrix = numpy_helper.to_array(stored["embedding.table"])
    assert matrix.dtype == np.int8
    assert np.abs(matrix).max() == MOST


def test_weights_have_seven_bits_and_a_scale_for_each_channel() -> None:
    model = tiny_translator("marian")
    stored = {
        value.name: numpy_helper.to_array(value)
        for value in quantize_translation(build(*read_model(model, 40), 20)).graph.initializer
    }
    weight = stored["encoder.0.up.weight"]
    found = weight * stored["encoder.0.up.weight.scale"]
    wanted = model.model.encoder.layers[0].fc1.weight.detach().numpy().T
    assert (np.abs(weight).max(0) == MOST).all()
    assert (np.abs(found - wanted) <= stored["encoder.0.up.weight.scale"] / 2 + 1e-6).all()


def test_a_channel_of_zeros() -> None:
    model = tiny_translator("marian")
    with torch.no_grad():
        model.model.encoder.layers[0].fc1.weight[3] = 0
    assert np.isfinite(logits(quantize_translation(build(*read_model(model, 40), 20)), model)).all()


def test_a_graph_without_a_plan_is_refused() -> None:
    graph = build(*read_model(tiny_translator("marian"), 40), 20)
    for text in ("{", "[]", '{"heads": 3}'):
        graph.metadata_props[0].value = text
        with pytest.raises(BundleError, match="a plan of its layers that cannot be read"):
            quantize_translation(graph)
    del graph.metadata_props[:]
    with pytest.raises(BundleError, match="has no plan"):
        quantize_translation(graph)


def test_an_int8_bundle(tmp_path: Path) -> None:
    sources = toy_sources(20)
    checkpoint, examples = write_translator(tmp_path / "checkpoint"), Split(sources, None, ())
    fp32 = export(checkpoint, tmp_path / "fp32", opset=20, atol=1e-4, examples=examples)
    int8 = write_int8(fp32, tmp_path / "int8")
    assert (int8.precision, int8.task, int8.details["reduce_range"]) == ("int8-dynamic", fp32.task, True)
    assert int8.details["quantization"]["products"] == "26 of 26 products quantized"
    assert int8.details["quantization"]["bytes"]["int8"]["word embedding"] > 0
    assert set(int8.files) == {"onnx/model_int8.onnx", "tokenizer.json", "config.json", "README.md"}
    before, after = load_as(Translator, fp32.folder), load_as(Translator, int8.folder)
    same = sum(a.text == b.text for a, b in zip(before(sources), after(sources), strict=True))
    assert same > 5  # random weights: the likeliest token is hardly likelier than the next
