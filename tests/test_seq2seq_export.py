"""Encoder-decoders become bundles that answer like torch."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import toy_tokenizer
from onnx import numpy_helper
from translation_models import (
    MODELS,
    TASK,
    WORDS,
    source_batch,
    tiny_translator,
    toy_sources,
    toy_translation_tokenizer,
    write_translator,
)

from distill.checkpoint import save
from distill.data import Split
from distill.errors import CheckpointError, RecipeError, RunError
from distill.seq2seq import load_seq2seq
from export.bundle import Bundle, read_bundle
from export.decoding import Decoding
from export.graph import export
from export.runtime import Translator, load_as
from export.seq2seq.checks import decoding_of
from export.seq2seq.export import to_onnx
from export.seq2seq.parity import generate

EXAMPLES = Split(toy_sources(20), None, ())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_translator(tmp_path_factory.mktemp("checkpoint") / "marian")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    return export(checkpoint, checkpoint.with_name("bundle"), opset=20, atol=1e-4, examples=EXAMPLES)


@pytest.mark.parametrize("kind", MODELS)
def test_every_architecture_answers_like_torch(kind: str, tmp_path: Path) -> None:
    checkpoint = write_translator(tmp_path / "checkpoint", kind)
    bundle = export(checkpoint, tmp_path / "bundle", opset=20, atol=1e-3, examples=EXAMPLES)
    parity = bundle.details["parity"]
    assert parity["greedy"] == parity["beams_4"] == {"same": 1.0, "n": 20}
    assert parity["n"] == (20 + 14) * 12  # real sources and awkward ones, at eleven positions and once more
    assert len({answer.text for answer in load_as(Translator, bundle.folder)(EXAMPLES.texts)}) > 10
    names = [value.name for value in onnx.load(bundle.model_path).graph.initializer]
    assert sum("embedding.table" in name for name in names) == 1
    assert len(names) == len(set(names))


def test_the_bundle_translates_as_generate_does(bundle: Bundle, checkpoint: Path) -> None:
    model, translator = load_seq2seq(checkpoint), load_as(Translator, bundle.folder)
    tokenizer = toy_translation_tokenizer()
    ids = tokenizer(list(EXAMPLES.texts), padding=True, return_tensors="np")
    wanted = generate(model, ids["input_ids"], ids["attention_mask"], decoding_of(model, TASK))
    texts = tokenizer.batch_decode(wanted, skip_special_tokens=True)
    assert [each.text for each in translator(EXAMPLES.texts)] == texts
    assert any(not each.stopped for each in translator(EXAMPLES.texts))


@pytest.mark.parametrize("opset", [21, 23])
def test_later_opsets(opset: int, checkpoint: Path, tmp_path: Path) -> None:
    found = export(checkpoint, tmp_path / "bundle", opset=opset, atol=1e-4, examples=EXAMPLES)
    assert found.opset == opset


def test_the_bundle_is_whole_and_says_how_to_decode(bundle: Bundle) -> None:
    found = read_bundle(bundle.folder)
    assert found.task == TASK
    assert set(found.files) == {"onnx/model.onnx", "tokenizer.json", "config.json", "README.md"}
    rules = Decoding(0, 1, 0, 16, suppressed=(0,), no_repeat_ngram_size=2)
    assert load_as(Translator, found.folder).decoding == rules
    card = (found.folder / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: translation" in card
    assert 'model(["a text"])[0].text' in card


def test_standard_operators_and_nothing_of_the_builder(bundle: Bundle, checkpoint: Path) -> None:
    model = onnx.load(bundle.model_path)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert [entry.key for entry in model.metadata_props] == ["potstill.plan"]
    for path in bundle.folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        wanted = [b"/home", b"/tmp", b"site-packages", str(checkpoint).encode(), f"/{getpass.getuser()}/".encode()]
        assert [text for text in wanted if text in content] == []


def test_the_same_weights_give_the_same_bytes(bundle: Bundle, checkpoint: Path) -> None:
    model = load_seq2seq(checkpoint).train()
    assert to_onnx(model, TASK, 20).SerializeToString(deterministic=True) == bundle.model_path.read_bytes()


def test_positions_are_kept_up_to_the_longest_text(bundle: Bundle) -> None:
    stored = {value.name: value for value in onnx.load(bundle.model_path).graph.initializer}
    assert list(stored["encoder.positions"].dims) == [24, 16]


def test_padding_does_not_change_the_answer(bundle: Bundle) -> None:
    engine = load_as(Translator, bundle.folder).engine
    ids, mask = np.array([[5, 6, 1]]), np.ones((1, 3), np.int64)
    wide = engine.start(np.pad(ids, ((0, 0), (0, 9))), np.pad(mask, ((0, 0), (0, 9))))
    np.testing.assert_allclose(engine.start(ids, mask)(np.array([0])), wide(np.array([0])), atol=1e-5)


def test_layers_may_differ_in_heads_and_width(tmp_path: Path) -> None:
    from torch import nn

    model = tiny_translator("marian", vocab_size=len(toy_translation_tokenizer()), pad_token_id=0, eos_token_id=1,
                            decoder_start_token_id=0, bos_token_id=None)  # fmt: skip
    shrink(model.model.encoder.layers[1].self_attn, 2)
    shrink(model.model.decoder.layers[0].self_attn, 1)
    shrink(model.model.decoder.layers[1].encoder_attn, 1)
    layer = model.model.encoder.layers[2]
    layer.fc1, layer.fc2 = nn.Linear(16, 5), nn.Linear(5, 16)
    graph = to_onnx(model, TASK, 20)
    stored = {value.name: numpy_helper.to_array(value) for value in graph.graph.initializer}
    assert stored["encoder.1.attention.qkv.weight"].shape == (16, 24)
    assert stored["encoder.2.up.weight"].shape == (16, 5)
    assert_same_logits(model, graph)


def test_matrices_that_are_not_tied(tmp_path: Path) -> None:
    from torch import nn

    model = tiny_translator("marian", vocab_size=len(toy_translation_tokenizer()))
    model.lm_head = nn.Linear(16, len(toy_translation_tokenizer()), bias=False)
    graph = to_onnx(model, TASK, 20)
    names = {value.name for value in graph.graph.initializer if "embedding.table" in value.name}
    assert names == {"embedding.table", "output.embedding.table"}
    assert_same_logits(model, graph)


def shrink(attention: Any, heads: int) -> None:
    """Keep the first heads alone."""
    from torch import nn

    width = attention.head_dim * heads
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, name, nn.Linear(16, width))
    attention.out_proj = nn.Linear(width, 16)
    attention.num_heads = heads


def assert_same_logits(model: Any, graph: onnx.ModelProto) -> None:
    """Torch and onnxruntime agree on one step."""
    import onnxruntime
    import torch

    from export.steps import Engine

    session = onnxruntime.InferenceSession(graph.SerializeToString())
    caches = {each.name: (each.shape[1], each.shape[3]) for each in session.get_inputs() if len(each.shape) == 4}
    ids, mask = source_batch(model)
    target = np.array([[0, 5, 6]] * 3)
    found = Engine(session, caches, model.config.vocab_size).start(ids, mask)(target)
    with torch.inference_mode():
        inputs = (torch.from_numpy(each) for each in (ids, mask, target))
        wanted = model(**dict(zip(("input_ids", "attention_mask", "decoder_input_ids"), inputs, strict=True))).logits
    np.testing.assert_allclose(found, wanted[:, -1].numpy(), atol=1e-4)


# --- what cannot be exported ------------------------------------------------------------------------


def write_changed(folder: Path, change: Any, tokenizer: Any = None, task: Any = TASK) -> Path:
    """A checkpoint whose model was changed before it was written."""
    sizes = {"vocab_size": len(toy_translation_tokenizer()), "pad_token_id": 0, "eos_token_id": 1}
    model = tiny_translator("marian", **sizes, decoder_start_token_id=0, bos_token_id=None)
    change(model)
    save(model, tokenizer or toy_translation_tokenizer(), task, folder)
    return folder


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"min_length": 5}, "generation config: min_length is not supported"),
        ({"repetition_penalty": 2.0}, "generation config: repetition_penalty is not supported"),
        ({"bad_words_ids": [[5, 6]]}, "bad_words_ids of several tokens"),
        ({"eos_token_id": [1, 5]}, "expected one eos_token_id, found [1, 5]"),
        ({"pad_token_id": None}, "there is no pad_token_id"),
    ],
)
def test_searches_that_the_runtime_does_not_have(settings: dict[str, Any], problem: str, tmp_path: Path) -> None:
    folder = write_changed(tmp_path / "checkpoint", lambda model: None)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **settings}), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        export(folder, tmp_path / "bundle", opset=20, atol=1e-4, examples=EXAMPLES)
    assert problem in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_every_reason_at_once(tmp_path: Path) -> None:
    from dataclasses import replace

    long = replace(TASK, max_length=300, max_target_length=500)
    folder = write_changed(tmp_path / "checkpoint", lambda model: None, toy_tokenizer(), long)
    with pytest.raises(CheckpointError) as caught:
        export(folder, tmp_path / "bundle", opset=17, atol=1e-4, examples=EXAMPLES)
    starts = ("opset 17", "tokenizer: it makes ids", "max_length:", "max_target_length:")
    assert [any(each.startswith(start) for each in caught.value.problems) for start in starts] == [True] * 4


def test_weights_that_are_no_numbers(checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    weights = load_file(folder / "model.safetensors")
    weights["model.encoder.layers.0.fc1.bias"][3] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        export(folder, tmp_path / "bundle", opset=20, atol=1e-4, examples=EXAMPLES)


def test_a_graph_that_answers_otherwise_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not answer like the model"):
        export(checkpoint, tmp_path / "bundle", opset=20, atol=0.0, examples=EXAMPLES)
    assert not (tmp_path / "bundle").exists()


# --- several languages ------------------------------------------------------------------------------


def write_multilingual(folder: Path, **languages: Any) -> Path:
    """A tiny mBART-50 with the toy words and all its language codes."""
    from dataclasses import replace

    from transformers import MBart50Tokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = MBart50Tokenizer(vocab=[(piece, -float(index)) for index, piece in enumerate(pieces)])
    model = tiny_translator("mbart", vocab_size=len(tokenizer))
    model.generation_config.update(no_repeat_ngram_size=2)
    save(model, tokenizer, replace(TASK, **languages), folder)
    return folder


def test_languages_are_marked_on_both_sides(tmp_path: Path) -> None:
    checkpoint = write_multilingual(tmp_path / "checkpoint", source_language="it_IT", target_language="en_XX")
    bundle = export(checkpoint, tmp_path / "bundle", opset=20, atol=1e-4, examples=EXAMPLES)
    translator = load_as(Translator, bundle.folder)
    vocabulary = translator.reader.tokenizer.get_vocab()
    [tokens] = translator.reader.read(["gatto"])
    assert (tokens.ids[0], tokens.ids[-1]) == (vocabulary["it_IT"], vocabulary["</s>"])
    assert translator.decoding.forced_start == vocabulary["en_XX"]
    assert bundle.details["parity"]["beams_4"]["same"] == 1.0
    assert "it_IT to en_XX" in (bundle.folder / "README.md").read_text(encoding="utf-8")
    assert not any("en_XX" in each.text for each in translator(EXAMPLES.texts))


def test_a_language_that_the_tokenizer_does_not_know(tmp_path: Path) -> None:
    checkpoint = write_multilingual(tmp_path / "checkpoint", source_language="it_IT", target_language="tlh")
    with pytest.raises(RecipeError, match="the tokenizer has no 'tlh'"):
        export(checkpoint, tmp_path / "bundle", opset=20, atol=1e-4, examples=EXAMPLES)
