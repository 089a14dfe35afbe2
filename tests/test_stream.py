"""A narrower residual stream answers as one whose other channels nobody reads, and comes back from disk."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import toy_tokenizer
from test_importance import pairs
from test_low_rank import CLASSES, in_factors
from test_seq2seq_export import assert_same_logits
from tiny_models import KINDS, VOCABULARY, answer, tiny_batch, tiny_config, tiny_model
from torch import nn
from transformers import AutoModelForSequenceClassification
from translation_models import MODELS, TASK, tiny_translator, toy_translation_tokenizer, write_translator

from compress.quantization import int8
from compress.quantization.translation_int8 import quantize_translation
from distill.channels import CHANNELS_KEY, apply_channels, keep_channels
from distill.checkpoint import load_model, save
from distill.errors import CheckpointError, RecipeError
from distill.layer_sizes import record_sizes
from distill.layers import layers, model_config
from distill.low_rank import low_rank_maps
from distill.models import build_student, copied
from distill.recipe import StudentRecipe
from distill.seq2seq import build_seq2seq, load_seq2seq
from distill.seq2seq_student import copied_seq2seq
from distill.smaller_vocabulary import prune_vocabulary
from distill.stream import stream
from export.graph import to_onnx
from export.seq2seq.export import to_onnx as translator_to_onnx

CHANNELS = [0, 1, 3, 4, 7, 8, 11, 12, 13, 15]
"""Those that stay, of 16."""
GONE = sorted(set(range(16)) - set(CHANNELS))


def made(kind: str) -> Any:
    return tiny_model(kind) if kind in KINDS else tiny_translator(kind)


def narrow(kind: str) -> Any:
    model = made(kind)
    keep_channels(model, CHANNELS)
    return model


def logits(model: Any) -> torch.Tensor:
    if model_config(model).model_type in KINDS:
        return answer(model, tiny_batch())
    with torch.no_grad():
        return model(**{key: value for key, value in pairs().items() if key != "labels"}).logits  # type: ignore[no-any-return]


def channel_by_channel(norm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What scales each channel by itself, as a norm does once mean and variance are known."""
    bias = getattr(norm, "bias", None)
    return lambda states: states * norm.weight * 0.3 + (0 if bias is None else bias)


def without_statistics(model: nn.Module) -> nn.Module:
    """The model with norms that do not mix channels."""
    for norm in stream(model).norms:
        norm.forward = channel_by_channel(norm)  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize("kind", [*KINDS, *MODELS])
def test_what_nobody_reads_can_go(kind: str) -> None:
    """Exactly so where norms do not mix channels."""
    full = without_statistics(made(kind).double())
    whole, found = logits(full), stream(full)
    with torch.no_grad():
        for reader in found.readers:
            reader.weight = nn.Parameter(reader.weight.detach().clone())  # untied: tables go on writing all channels
            reader.weight[:, GONE] = 0
    wanted = logits(full)
    narrower = made(kind).double()
    keep_channels(narrower, CHANNELS)
    assert (wanted - whole).abs().max() > 0.01
    assert (logits(without_statistics(narrower)) - wanted).abs().max() < 1e-10 * wanted.abs().max()


@pytest.mark.parametrize("kind", ["t5", "t5-gated", "mt5"])
def test_root_mean_squares_of_channels_that_are_zero(kind: str) -> None:
    """Over k of d channels the mean is d / k as large, for which weights and epsilon of the norms can make up."""
    full = made(kind).double()
    narrower = copy.deepcopy(full)
    keep_channels(narrower, CHANNELS)
    found, more = stream(full), 16 / len(CHANNELS)
    with torch.no_grad():
        for module in found.tables:
            module.weight[:, GONE] = 0  # type: ignore[index, operator]
        for writer in found.writers:
            writer.weight[GONE] = 0
        for norm in stream(narrower).norms:
            norm.weight.mul_(more**0.5)  # type: ignore[operator]
            norm.variance_epsilon *= more  # type: ignore[operator, assignment]
    torch.testing.assert_close(logits(narrower), logits(full), rtol=1e-5, atol=1e-5)  # T5 takes means in float32


@pytest.mark.parametrize("kind", [*KINDS, *MODELS])
def test_what_is_kept_are_slices_of_what_was_there(kind: str) -> None:
    full, narrower = made(kind), narrow(kind)
    before, after = full.state_dict(), narrower.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        for axis in range(value.dim()):
            if after[name].shape[axis] != value.shape[axis]:
                assert (value.shape[axis], after[name].shape[axis]) == (16, 10)
                value = value.index_select(axis, torch.tensor(CHANNELS))
        assert torch.equal(value, after[name]), name
    assert stream(full).width == 16 and stream(narrower).width == 10
    assert [layer.size for layer in layers(full)] == [layer.size for layer in layers(narrower)]
    trained = {name for name, value in narrower.named_parameters() if value.requires_grad}
    assert trained == {name for name, value in full.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("kind", [*KINDS, *MODELS])
def test_only_what_has_no_channels_is_left_out(kind: str) -> None:
    """The last map of a head, biases of relative positions, and what stands in front of ELECTRA's projection."""
    model = made(kind)
    held = {weight for module, _ in stream(model).parts for weight in module.parameters(recurse=False)}
    left = {name for name, weight in model.named_parameters() if weight not in held}
    words = ("classifier", "relative_attention_bias", *(("electra.embeddings.",) if kind == "electra" else ()))
    assert all(any(word in name for word in words) for name in left), left
    counts = dict.fromkeys(("t5", "t5-gated", "mt5", *KINDS), 2) | {"electra": 7}
    assert len(left) == counts.get(kind, 0)


@pytest.mark.parametrize("kind", ["marian", "bart", "t5", "mt5", "m2m_100"])
def test_tables_that_are_one_stay_one(kind: str) -> None:
    model = narrow(kind)
    tables = [model.get_input_embeddings(), model.get_encoder().embed_tokens, model.get_decoder().embed_tokens]
    assert len({id(each.weight) for each in (*tables, model.lm_head)}) == 1
    assert model.lm_head.weight.shape == (VOCABULARY, 10) and model.lm_head.in_features == 10


def test_tables_that_are_two_stay_two() -> None:
    model = tiny_translator(
        "marian", share_encoder_decoder_embeddings=False, tie_word_embeddings=False, decoder_vocab_size=VOCABULARY
    )
    keep_channels(model, CHANNELS)
    tables = (model.get_encoder().embed_tokens, model.get_decoder().embed_tokens, model.lm_head)
    assert len({id(each.weight) for each in tables}) == 3
    assert all(each.weight.shape == (VOCABULARY, 10) for each in tables)
    assert torch.isfinite(logits(model)).all()


def test_electra_without_a_projection() -> None:
    config: Any = tiny_config("electra")
    config.embedding_size = 16
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    keep_channels(model, CHANNELS)
    assert model.electra.embeddings.word_embeddings.weight.shape == (VOCABULARY, 10)
    assert torch.isfinite(logits(model)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_classifiers_come_back_from_disk(kind: str, tmp_path: Path) -> None:
    model = narrow(kind)
    save(model, toy_tokenizer(), CLASSES, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert getattr(model_config(again), CHANNELS_KEY) == CHANNELS


@pytest.mark.parametrize("kind", MODELS)
def test_encoder_decoders_come_back_from_disk(kind: str, tmp_path: Path) -> None:
    """Among them those whose positions are computed: these have the places of their channels in the full width."""
    model = narrow(kind)
    save(model, toy_translation_tokenizer(), TASK, tmp_path)
    again: Any = load_seq2seq(tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert again.lm_head.weight.shape == (VOCABULARY, 10)
    ids = torch.arange(3, 9)[None]
    assert torch.equal(again.generate(ids, max_new_tokens=8), model.generate(ids, max_new_tokens=8))


@pytest.mark.parametrize("kind", ["bert", "marian", "m2m_100"])
def test_another_process_gets_the_same_answers(kind: str, tmp_path: Path) -> None:
    if kind == "bert":
        model, loader = narrow(kind), "load_model"
        save(model, toy_tokenizer(), CLASSES, tmp_path / "model")
    else:
        model, loader = load_seq2seq(write_translator(tmp_path / "whole", kind)), "load_seq2seq"
        keep_channels(model, CHANNELS)
        save(model, toy_translation_tokenizer(), TASK, tmp_path / "model")
    code = f"""
import sys, torch
from pathlib import Path
from distill.checkpoint import load_model
from distill.seq2seq import build_seq2seq, load_seq2seq
torch.set_num_threads(1)
model, ids = {loader}(Path(sys.argv[1])), torch.arange(3, 15).reshape(2, 6)
with torch.no_grad():
    print(model(input_ids=ids, attention_mask=torch.ones_like(ids), **({{}} if {kind == "bert"} else
        {{"decoder_input_ids": ids}})).logits.numpy().tobytes().hex())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    threads, ids = torch.get_num_threads(), torch.arange(3, 15).reshape(2, 6)
    torch.set_num_threads(1)
    decoder = {} if kind == "bert" else {"decoder_input_ids": ids}
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids), **decoder).logits
    torch.set_num_threads(threads)
    assert done.stdout.strip() == found.numpy().tobytes().hex()


@pytest.mark.parametrize("kind", ["bert", "m2m_100"])
def test_narrower_twice(kind: str, tmp_path: Path) -> None:
    model = narrow(kind)
    keep_channels(model, [1, 4, 9])
    assert getattr(model_config(model), CHANNELS_KEY) == [1, 7, 15]
    at_once = made(kind)
    keep_channels(at_once, [1, 7, 15])
    assert torch.equal(logits(model), logits(at_once))


@pytest.mark.parametrize("kind", ["bert", "marian", "t5"])
def test_together_with_sizes_layers_ranks_and_a_vocabulary(kind: str, tmp_path: Path) -> None:
    model = narrow(kind)
    for layer in layers(model):
        layer.keep({"neurons": range(12)} if kind == "t5" else {"heads": [0], "neurons": range(12)})
    record_sizes(model)
    fewer: Any = copied(model, StudentRecipe(layers=(0, 2))) if kind == "bert" else copied_seq2seq(model, 2, 1)
    assert stream(fewer).width == 10 and len(layers(fewer)) < len(layers(model))
    smaller = in_factors(fewer)
    if kind == "bert":
        save(smaller, toy_tokenizer(), CLASSES, tmp_path)
        again: Any = load_model(tmp_path)
    else:
        save(smaller, toy_translation_tokenizer(), TASK, tmp_path)
        again = load_seq2seq(tmp_path)
        assert_same_logits(again, translator_to_onnx(again, TASK, 20))
    assert torch.equal(logits(again), logits(smaller))
    assert low_rank_maps(again).keys() == low_rank_maps(smaller).keys()


@pytest.mark.parametrize("kind", ["marian", "bert"])
def test_from_the_config_of_a_narrower_model(kind: str, tmp_path: Path) -> None:
    model = narrow(kind)
    if kind == "bert":
        save(model, toy_tokenizer(), CLASSES, tmp_path)
        made: Any = build_student(StudentRecipe(config="x"), nn.Module(), CLASSES, tmp_path / "config.json", 0)
    else:
        save(model, toy_translation_tokenizer(), TASK, tmp_path)
        made = build_seq2seq(tmp_path / "config.json", toy_translation_tokenizer(), TASK, 0)
    assert stream(made).width == 10 and getattr(model_config(made), CHANNELS_KEY) == CHANNELS


def test_with_fewer_pieces(tmp_path: Path) -> None:
    model, tokenizer = load_seq2seq(write_translator(tmp_path / "whole")), toy_translation_tokenizer()
    keep_channels(model, CHANNELS)
    made = prune_vocabulary(model, tokenizer, ["il gatto dorme", "la casa"])
    assert stream(made.model).width == 10
    save(made.model, made.tokenizer, TASK, tmp_path / "pruned")
    assert torch.equal(*(cast_logits(each) for each in (made.model, load_seq2seq(tmp_path / "pruned"))))


def cast_logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=ids).logits  # type: ignore[no-any-return]


def test_factors_are_not_cut() -> None:
    model = in_factors(made("bert"))
    before = logits(model)
    with pytest.raises(CheckpointError, match="prune, then factorise"):
        keep_channels(model, CHANNELS)
    assert torch.equal(logits(model), before) and not hasattr(model_config(model), CHANNELS_KEY)


def test_a_narrower_teacher_is_not_narrowed() -> None:
    with pytest.raises(RecipeError, match="the teacher was pruned"):
        copied(narrow("bert"), StudentRecipe(hidden_size=8))


def test_a_config_without_channels_changes_nothing() -> None:
    model = made("bert")
    before = logits(model)
    apply_channels(model)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(
    "channels", [7, [], {}, ["1"], [1.0], [True], [2, 1], [1, 1], [-1, 3], [3, 16], [None], "0123", list(range(17))]
)
@pytest.mark.parametrize("kind", ["bert", "marian"])
def test_channels_that_cannot_be(channels: object, kind: str) -> None:
    model = made(kind)
    setattr(model_config(model), CHANNELS_KEY, channels)
    with pytest.raises(CheckpointError, match=f"{CHANNELS_KEY}: expected different numbers from 0 to 15 in rising"):
        apply_channels(model)
    assert stream(model).width == 16


@pytest.mark.parametrize("kind", ["bert", "marian"])
def test_weights_of_another_width(kind: str, tmp_path: Path) -> None:
    model = narrow(kind)
    setattr(model_config(model), CHANNELS_KEY, [0, 1, 2])
    save(model, toy_tokenizer() if kind == "bert" else toy_translation_tokenizer(), CLASSES, tmp_path)
    with pytest.raises(CheckpointError, match="weights and config do not fit"):
        (load_model if kind == "bert" else load_seq2seq)(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_classifiers_answer_like_torch(kind: str) -> None:
    model, batch = narrow(kind), tiny_batch()
    graph = to_onnx(model, 20)
    np.testing.assert_allclose(run(graph, batch), answer(model, batch), atol=1e-4)
    correlation = np.corrcoef(run(int8.dynamic(graph), batch).ravel(), answer(model, batch).ravel())[0, 1]
    assert correlation > 0.95


def run(graph: Any, batch: dict[str, torch.Tensor]) -> Any:
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    ids = batch["input_ids"].numpy()
    known = {"input_ids": ids, "attention_mask": batch["attention_mask"].numpy(), "token_type_ids": np.zeros_like(ids)}
    return session.run(None, {each.name: known[each.name] for each in session.get_inputs()})[0]


@pytest.mark.parametrize("kind", MODELS)
def test_graphs_of_encoder_decoders_answer_like_torch(kind: str) -> None:
    """Scales that follow from d_model are those of the full width, in torch and in the graph."""
    model = narrow(kind)
    graph = translator_to_onnx(model, TASK, 20)
    assert_same_logits(model, graph)
    assert onnxruntime.InferenceSession(quantize_translation(graph).SerializeToString()) is not None


def test_a_narrower_model_still_learns() -> None:
    model = narrow("bert")
    model(**tiny_batch()).logits.sum().backward()
    assert all(value.grad is not None for name, value in model.named_parameters() if "token_type" not in name)
