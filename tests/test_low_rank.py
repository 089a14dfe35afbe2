"""Maps in two factors answer as their product does, come back from disk, and are refused where they cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_tokenizer
from tiny_models import KINDS, LABELS, answer, tiny_batch, tiny_model
from torch import nn
from translation_models import MODELS, TASK, source_batch, tiny_translator, toy_translation_tokenizer, write_translator

from compress.low_rank.factorise import candidates
from distill.checkpoint import load_model, save
from distill.errors import CheckpointError
from distill.layer_sizes import record_sizes
from distill.layers import layers, model_config
from distill.low_rank import RANKS_KEY, LowRank, apply_ranks, low_rank_maps, record_ranks, replace_map, whole
from distill.models import copied
from distill.recipe import StudentRecipe
from distill.rounding import rounded
from distill.seq2seq import load_seq2seq
from distill.seq2seq_student import copied_seq2seq
from distill.smaller_vocabulary import prune_vocabulary
from distill.task import Task

CLASSES = Task("classification", LABELS, max_length=32)


def in_factors(model: Any, rank: int = 3, seed: int = 7) -> Any:
    """The model with random factors in the place of all maps that may have them."""
    torch.manual_seed(seed)
    for path, found in candidates(model).items():
        made = LowRank(found.in_features, found.out_features, rank, found.bias is not None)
        with torch.no_grad():
            for value in made.parameters():
                value.normal_(std=0.4)
        replace_map(model, path, made)
    record_ranks(model)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    ids, mask = (torch.from_numpy(each) for each in source_batch(model))
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :5]).logits  # type: ignore[no-any-return]


def test_a_map_is_the_product_of_its_factors() -> None:
    low = LowRank(2, 3, 1)
    with torch.no_grad():
        low.first.weight.copy_(torch.tensor([[1.0, 2.0]]))
        low.second.weight.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
        low.second.bias.copy_(torch.tensor([0.5, 0.5, 0.5]))
    assert low.matrix().tolist() == [[1.0, 2.0], [0.0, 0.0], [-1.0, -2.0]]
    assert low(torch.tensor([[3.0, 1.0]])).tolist() == [[5.5, 0.5, -4.5]]
    assert (low.in_features, low.out_features, low.rank) == (2, 3, 1)
    assert low.bias is low.second.bias and LowRank(2, 3, 1, bias=False).bias is None


@pytest.mark.parametrize("kind", KINDS)
def test_classifiers_come_back_from_disk(kind: str, tmp_path: Path) -> None:
    model, batch = in_factors(tiny_model(kind)), tiny_batch()
    assert len(low_rank_maps(model)) == 12
    save(model, toy_tokenizer(), CLASSES, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(answer(again, batch), answer(model, batch))
    assert {path: each.rank for path, each in low_rank_maps(again).items()} == dict.fromkeys(low_rank_maps(model), 3)


@pytest.mark.parametrize("kind", MODELS)
def test_encoder_decoders_come_back_from_disk(kind: str, tmp_path: Path) -> None:
    model = in_factors(tiny_translator(kind))
    model.generation_config.update(bad_words_ids=[[7]], max_length=11)
    save(model, toy_translation_tokenizer(), TASK, tmp_path)
    again = load_seq2seq(tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert low_rank_maps(again).keys() == low_rank_maps(model).keys()
    assert again.generation_config.to_dict() == model.generation_config.to_dict()  # type: ignore[union-attr, operator]
    assert not again.training


@pytest.mark.parametrize("kind", ["bert", "marian"])
def test_another_process_gets_the_same_answers(kind: str, tmp_path: Path) -> None:
    if kind == "bert":
        model, loader = in_factors(tiny_model(kind)), "load_model"
        save(model, toy_tokenizer(), CLASSES, tmp_path / "model")
    else:
        model, loader = in_factors(load_seq2seq(write_translator(tmp_path / "whole", kind))), "load_seq2seq"
        save(model, toy_translation_tokenizer(), TASK, tmp_path / "model")
    code = f"""
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from distill.checkpoint import load_model
from distill.seq2seq import load_seq2seq
torch.set_num_threads(1)
model, ids = {loader}(Path(sys.argv[1])), torch.arange(3, 15).reshape(2, 6)
with torch.no_grad():
    print(model(input_ids=ids, attention_mask=torch.ones_like(ids), **({{}} if {kind == "bert"} else
        {{"decoder_input_ids": ids}})).logits.numpy().tobytes().hex())
"""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", code, str(tmp_path / "model"), str(root / "tests")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    threads, ids = torch.get_num_threads(), torch.arange(3, 15).reshape(2, 6)
    torch.set_num_threads(1)
    decoder = {} if kind == "bert" else {"decoder_input_ids": ids}
    with torch.no_grad():
        wanted = model(input_ids=ids, attention_mask=torch.ones_like(ids), **decoder).logits.numpy().tobytes().hex()
    torch.set_num_threads(threads)
    assert done.stdout.strip() == wanted


def test_pruned_layers_can_have_factors_too(tmp_path: Path) -> None:
    model = tiny_model("bert")
    for layer in layers(model):
        layer.keep({"heads": [0, 2], "neurons": range(12)})
    record_sizes(model)
    save(in_factors(model), toy_tokenizer(), CLASSES, tmp_path)
    assert torch.equal(answer(load_model(tmp_path), tiny_batch()), answer(model, tiny_batch()))


@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_factors_are_not_cut(kind: str) -> None:
    model = in_factors(tiny_model("bert"))
    before = answer(model, tiny_batch())
    with pytest.raises(CheckpointError, match="prune, then factorise"):
        layers(model)[0].keep({kind: [0]})
    assert torch.equal(answer(model, tiny_batch()), before)


STEM = "bert.encoder.layer.0"


@pytest.mark.parametrize(
    ("ranks", "problems"),
    [
        (
            {f"{STEM}.nothing": 2, "classifier": 1, STEM: 1, f"{STEM}.output.LayerNorm": 1, 5: 1},
            [
                f"{STEM}.nothing: the model's layers have no such linear map",
                "classifier: the model's layers have no such linear map",
                f"{STEM}: the model's layers have no such linear map",
                f"{STEM}.output.LayerNorm: the model's layers have no such linear map",
                "5: the model's layers have no such linear map",
            ],
        ),
        (
            {f"{STEM}.output.dense": 0, f"{STEM}.intermediate.dense": 17, f"{STEM}.attention.output.dense": "2"},
            [
                f"{STEM}.output.dense: expected a rank from 1 to 16, found 0",
                f"{STEM}.intermediate.dense: expected a rank from 1 to 16, found 17",
                f"{STEM}.attention.output.dense: expected a rank from 1 to 16, found '2'",
            ],
        ),
        ({f"{STEM}.output.dense": True}, [f"{STEM}.output.dense: expected a rank from 1 to 16, found True"]),
    ],
)
def test_ranks_that_cannot_be(ranks: object, problems: list[str]) -> None:
    model = tiny_model("bert")
    setattr(model_config(model), RANKS_KEY, ranks)
    with pytest.raises(CheckpointError, match="the config names ranks that cannot be") as caught:
        apply_ranks(model)
    assert list(caught.value.problems) == problems
    assert not low_rank_maps(model)  # nothing is replaced before all is known to fit


@pytest.mark.parametrize("ranks", [7, [3], "x"])
def test_ranks_that_are_no_mapping(ranks: object) -> None:
    model = tiny_model("bert")
    setattr(model_config(model), RANKS_KEY, ranks)
    with pytest.raises(CheckpointError, match=f"{RANKS_KEY}: expected a rank for each map by its name, found"):
        apply_ranks(model)


def test_a_config_without_ranks_changes_nothing() -> None:
    model = tiny_model("bert")
    apply_ranks(model)
    assert not low_rank_maps(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ranks: ranks | {next(iter(ranks)): 2}, "weights and config do not fit"),
        (lambda ranks: {}, "weights and config do not fit"),
        (lambda ranks: dict(list(ranks.items())[1:]), "weights and config do not fit"),
        (lambda ranks: ranks | {"model.encoder.layers.0.self_attn.q_proj": 3}, "weights and config do not fit"),
    ],
)
def test_weights_of_other_ranks_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    save(in_factors(tiny_translator("marian")), toy_translation_tokenizer(), TASK, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config[RANKS_KEY] = change(config[RANKS_KEY])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_seq2seq(tmp_path)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(in_factors(tiny_translator("t5")), toy_translation_tokenizer(), TASK, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = "encoder.block.1.layer.1.DenseReluDense.wo.first.weight"
    del weights[gone]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="weights and config do not fit") as caught:
        load_seq2seq(tmp_path)
    assert caught.value.problems == (f"{gone} is missing",)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_multiplied_out_a_classifier_answers_the_same(kind: str) -> None:
    model, batch = in_factors(tiny_model(kind)), tiny_batch()
    full = whole(model)
    assert not low_rank_maps(full) and not hasattr(model_config(full), RANKS_KEY)
    assert len(low_rank_maps(model)) == 12  # the model itself stays as it is
    torch.testing.assert_close(answer(full, batch), answer(model, batch), atol=1e-4, rtol=1e-5)


def test_multiplied_out_without_biases() -> None:
    model = in_factors(tiny_translator("t5"))
    torch.testing.assert_close(logits(whole(model)), logits(model), atol=1e-4, rtol=1e-4)


def test_students_copy_the_product() -> None:
    student = copied(in_factors(tiny_model("bert")), StudentRecipe(layers=2))
    assert not low_rank_maps(student) and not hasattr(model_config(student), RANKS_KEY)
    assert answer(student, tiny_batch()).shape == (3, 3)
    translator = copied_seq2seq(in_factors(tiny_translator("marian")), 2, 1)
    assert not low_rank_maps(translator) and not hasattr(model_config(translator), RANKS_KEY)


def test_a_smaller_vocabulary_keeps_the_factors(tmp_path: Path) -> None:
    model = in_factors(load_seq2seq(write_translator(tmp_path, "marian")))
    pruned = prune_vocabulary(model, toy_translation_tokenizer(), ["il gatto dorme"])
    assert low_rank_maps(pruned.model).keys() == low_rank_maps(model).keys()
    assert pruned.to_json()["after"]["pieces"] < pruned.to_json()["before"]["pieces"]


def test_both_factors_learn_and_are_rounded() -> None:
    model, batch = in_factors(tiny_model("bert")), tiny_batch()
    plain = answer(model, batch)
    with rounded(model):
        model(**batch).logits.sum().backward()
        seen = answer(model, batch)
        second = model.get_submodule(f"{STEM}.output.dense.second")
        states = torch.randn(2, 4, 3)
        assert not torch.equal(second(states), nn.functional.linear(states, second.weight, second.bias))
    assert 0 < (seen - plain).abs().max() < 2
    assert torch.equal(answer(model, batch), plain)
    for low in low_rank_maps(model).values():
        assert low.first.weight.grad is not None and low.second.weight.grad is not None
