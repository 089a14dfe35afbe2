"""Float16 forms of graphs. On the CPU onnxruntime computes them in float32, so overflow is looked for elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from test_encoder_graph import logits as classified
from test_encoder_graph import torch_logits as torch_classified
from test_translation_int8 import logits, torch_logits
from tiny_models import KINDS, tiny_batch, tiny_model
from translation_models import MODELS, opened, source_batch, tiny_translator, toy_sources, write_translator

from compress.quantization.half import Half, half, narrowed
from compress.quantization.operators import LEAST_OPSET
from compress.quantization.products import count_products
from distill.data import Split
from distill.errors import BundleError
from export.beams import beam_search
from export.bundle import Bundle
from export.decoding import Decoding
from export.encoder.build import build_classifier
from export.encoder.weights import read_classifier
from export.graph import export
from export.graphs.plan import Plan, Weights
from export.seq2seq.build import build
from export.seq2seq.weights import read_model


def narrow(write: Any, plan: Plan, weights: Weights, wide: bool) -> onnx.ModelProto:
    graph: onnx.ModelProto = write(plan, narrowed(plan, weights, wide), LEAST_OPSET, partial(Half, wide=wide))
    return graph


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_classifiers_are_close(kind: str, wide: bool) -> None:
    model, batch = tiny_model(kind), tiny_batch(5, 9)
    graph = narrow(build_classifier, *read_classifier(model), wide)
    wanted = torch_classified(model, batch)
    found = classified(graph, batch)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_translation_models_are_close(kind: str, wide: bool) -> None:
    model = tiny_translator(kind, **({"initializer_factor": 0.3} if "t5" in kind else {}))
    graph = narrow(build, *read_model(model, 40), wide)
    found, wanted = logits(graph, model), torch_logits(model)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_what_is_float16() -> None:
    plan, weights = read_model(tiny_translator("t5"), 40)
    for wide, kept in ((False, {"norm"}), (True, {"norm", "down"})):
        graph = narrow(build, plan, weights, wide).graph
        floats = {value.name for value in graph.initializer if value.data_type == TensorProto.FLOAT and len(value.dims)}
        assert {part for name in floats for part in kept if part in name} == kept
        assert all(any(part in name for part in kept) for name in floats - {"empty_logits"})
        caches = [value for value in graph.input if value.name.startswith("past_")]
        assert {value.type.tensor_type.elem_type for value in caches} == {TensorProto.FLOAT16}
    assert str(count_products(narrow(build, plan, weights, False).graph)) == "26 of 26 products quantized"


@pytest.mark.parametrize("beams", [1, 3])
def test_past_and_source_are_picked_in_the_graph(beams: int) -> None:
    model = tiny_translator("marian", init_std=1.5)
    ids, mask = source_batch(model, rows=4)
    rules = Decoding(start=2, end=2, pad=1, max_length=12, beams=beams)
    engine = opened(narrow(build, *read_model(model, 40), False))
    assert (engine.device, engine.real) == ("cpu", np.float16)
    together = beam_search(engine.start(ids, mask), 4, rules, beams)
    for row in range(4):
        used = int(mask[row].sum())
        alone = beam_search(engine.start(ids[[row], :used], mask[[row], :used]), 1, rules, beams)[0]
        assert [each.tokens for each in together[row]] == [each.tokens for each in alone]


@pytest.fixture(scope="module")
def texts() -> tuple[str, ...]:
    return toy_sources(6)


def exported(folder: Path, kind: str, texts: tuple[str, ...], **changes: Any) -> Bundle:
    checkpoint = write_translator(folder / "checkpoint", kind, **changes)
    return export(checkpoint, folder / "fp32", opset=20, atol=1e-3, examples=Split(texts, None, ()))


def is_wide(graph: onnx.ModelProto) -> bool:
    stored = {value.name: value.data_type for value in graph.graph.initializer}
    return stored["encoder.0.down.weight"] == TensorProto.FLOAT


def test_fp32_stays_where_fp16_overflows(tmp_path: Path, texts: tuple[str, ...]) -> None:
    bundle = exported(tmp_path, "t5", texts)
    graph = onnx.load(bundle.model_path)
    assert not is_wide(half(graph, bundle, texts))
    for value in graph.graph.initializer:
        if value.name.startswith("encoder.") and value.name.endswith(".down.weight"):
            array = onnx.numpy_helper.to_array(value)
            value.CopyFrom(onnx.numpy_helper.from_array(array * (6e4 / np.abs(array).max()), value.name))
    assert is_wide(half(graph, bundle, texts))


def test_weights_beyond_fp16(tmp_path: Path, texts: tuple[str, ...]) -> None:
    bundle = exported(tmp_path, "marian", texts)
    graph = onnx.load(bundle.model_path)
    value = next(value for value in graph.graph.initializer if value.name == "encoder.0.up.weight")
    value.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(value) * np.float32(1e9), value.name))
    with pytest.raises(BundleError, match="beyond float16") as caught:
        half(graph, bundle, texts)
    assert caught.value.problems == ("encoder.0.up.weight",)


def test_a_traced_graph_is_refused(tmp_path: Path, texts: tuple[str, ...]) -> None:
    bundle = exported(tmp_path, "marian", texts)
    graph = onnx.load(bundle.model_path)
    del graph.metadata_props[:]
    with pytest.raises(BundleError, match="this one was traced"):
        half(graph, bundle, texts)
