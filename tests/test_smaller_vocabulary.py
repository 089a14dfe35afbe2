"""Models with fewer pieces answer as before about those that are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_runs import Project
from conftest import toy_rows, toy_tokenizer
from test_steps import opened
from tiny_models import KINDS, tiny_config
from toy_translation import TRAINING, write_translation_project
from transformers import AutoModelForSequenceClassification
from translation_models import MODELS, tiny_translator
from vocabularies import mbart50, t5

from distill import steps, translations
from distill.checkpoint import load_model, load_tokenizer, save
from distill.data import Split
from distill.errors import CheckpointError, DataError
from distill.files import read_json
from distill.layer_sizes import record_sizes
from distill.layers import layers
from distill.seq2seq import load_seq2seq, set_languages
from distill.smaller_vocabulary import Pruned, prune_vocabulary, sizes
from distill.task import Task
from distill.translation import for_vocabulary
from distill.translations import Translations
from distill.vocabulary import tokenizer_sum
from distill.words import SMALLEST, Words, renumbered
from export.graph import export
from export.runtime import Translator, load_as

TEXTS = ["the cat sleeps", "il gatto dorme", "the dog"]
TASK = Task(
    "translation", (), metric="bleu", max_length=24, max_target_length=12, source_language="en_XX",
    target_language="it_IT",
)  # fmt: skip


def translator(kind: str, **changes: Any) -> tuple[Any, Any]:
    """A model of this kind with a tokenizer of mBART-50's or T5's shape; T5 has more rows than pieces."""
    tokenizer = t5() if "t5" in kind else mbart50()
    spare = 5 if "t5" in kind else 0
    return tiny_translator(kind, vocab_size=len(tokenizer) + spare, **changes), tokenizer


@pytest.mark.parametrize("kind", MODELS)
def test_translators_answer_as_before(kind: str) -> None:
    model, tokenizer = translator(kind)
    pruned = prune_vocabulary(model, tokenizer, TEXTS)
    rows = torch.tensor(pruned.ids)
    assert len(pruned.tokenizer) == len(rows) == sizes(pruned.model)["pieces"] < len(tokenizer)
    old, new = (each(TEXTS, padding=True, return_tensors="pt") for each in (tokenizer, pruned.tokenizer))
    with torch.inference_mode():
        before = model(**old, decoder_input_ids=old["input_ids"]).logits
        after = pruned.model(**new, decoder_input_ids=new["input_ids"]).logits
    np.testing.assert_allclose(after, before[..., rows], atol=1e-4)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert tied == (pruned.model.lm_head.weight is pruned.model.get_input_embeddings().weight)
    assert pruned.to_json() == {"before": sizes(model), "after": sizes(pruned.model)}
    saved = sizes(model)["bytes"] - sizes(pruned.model)["bytes"]
    assert saved == 4 * 16 * (sizes(model)["pieces"] - len(rows)) * (1 if tied else 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("narrowed", [False, True])
def test_classifiers_answer_as_before(kind: str, narrowed: bool, tmp_path: Path) -> None:
    tokenizer, config = toy_tokenizer(), tiny_config(kind)
    config.vocab_size, config.pad_token_id = len(tokenizer), 0
    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_config(config).eval()
    if narrowed:
        layers(model)[0].keep({"heads": [0, 2], "neurons": range(7)})
        record_sizes(model)
    texts = [text for text, _ in toy_rows(6)]
    pruned = prune_vocabulary(model, tokenizer, texts)
    save(pruned.model, pruned.tokenizer, Task("classification", ("bad", "fair", "good")), tmp_path)
    again: Any = load_model(tmp_path)
    old, new = (
        each(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        for each in (tokenizer, load_tokenizer(tmp_path))
    )
    with torch.inference_mode():
        np.testing.assert_allclose(again(**new).logits, model(**old).logits, atol=1e-5)
    assert again.config.vocab_size == len(pruned.ids) < len(tokenizer)


def test_special_ids_are_renumbered_everywhere() -> None:
    model, tokenizer = translator("mbart")
    set_languages(model, tokenizer, TASK)
    number = tokenizer.convert_tokens_to_ids
    model.generation_config.update(
        bad_words_ids=[[1], [number("▁the"), number("▁cane")], [number("▁cane")]],
        suppress_tokens=[number("▁cane"), number("▁cat")],
        begin_suppress_tokens=[number("▁cane")],
        eos_token_id=[2, number("▁lo" if "▁lo" in tokenizer.get_vocab() else "lo")],
    )
    pruned = prune_vocabulary(model, tokenizer, TEXTS)
    new, after = pruned.tokenizer.convert_tokens_to_ids, pruned.model.generation_config
    assert after.forced_bos_token_id == new("it_IT") != number("it_IT")
    assert after.bad_words_ids == [[1]]
    assert after.suppress_tokens == [new("▁cat")]
    assert after.begin_suppress_tokens is None
    assert after.eos_token_id == [2, new("lo")], "an id that the config names stays"
    assert pruned.model.config.vocab_size == len(pruned.ids)
    assert model.config.vocab_size == len(tokenizer), "the model that was given stays"


@pytest.mark.parametrize("kind", ["mbart", "marian"])
def test_a_bundle_translates_as_before(kind: str, tmp_path: Path) -> None:
    model, tokenizer = translator(kind)
    set_languages(model, tokenizer, TASK)
    pruned = prune_vocabulary(model, tokenizer, TEXTS)
    gone = sorted(set(range(len(tokenizer))) - set(pruned.ids))
    model.final_logits_bias[:, gone] = -1e4  # so that only pieces that are left are written
    made = {}
    for name, parts in (("whole", (model, tokenizer)), ("pruned", (pruned.model, pruned.tokenizer))):
        save(*parts, TASK, tmp_path / name)
        bundle = export(
            tmp_path / name, tmp_path / f"{name}-fp32", opset=20, atol=1e-3, examples=Split(tuple(TEXTS), None, ())
        )
        made[name] = load_as(Translator, bundle.folder)
    assert [each.text for each in made["pruned"](TEXTS)] == [each.text for each in made["whole"](TEXTS)]
    assert len({each.text for each in made["pruned"](TEXTS, beams=3)}) > 1
    small, large = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("pruned", "whole"))
    assert large - small > 4 * 16 * len(gone)


def test_a_pruned_model_can_be_pruned_again() -> None:
    once = prune_vocabulary(*translator("bart"), TEXTS)
    twice = prune_vocabulary(once.model, once.tokenizer, TEXTS)
    assert len(twice.ids) == len(once.ids) and twice.to_json()["before"] == twice.to_json()["after"]


def test_padding_keeps_its_id_where_positions_are_counted_from_it() -> None:
    model, tokenizer = translator("m2m_100", pad_token_id=12)
    pruned = prune_vocabulary(model, tokenizer, ["."])
    assert pruned.ids[:13] == tuple(range(13)) and pruned.model.config.pad_token_id == 12


# --- what cannot be pruned ------------------------------------------------------------------------


def test_all_reasons_at_once() -> None:
    model, tokenizer = translator("marian")
    model.resize_token_embeddings(30)
    model.config.share_encoder_decoder_embeddings = False
    model.generation_config.update(sequence_bias={(5,): 1.0}, pad_token_id=900)
    with pytest.raises(CheckpointError, match="the model's vocabulary cannot shrink") as error:
        prune_vocabulary(model, tokenizer, TEXTS)
    found = " | ".join(error.value.problems)
    for words in (
        f"ids up to {len(tokenizer) - 1}, the model has 30",
        "one vocabulary for both",
        "sequence_bias",
        "pad_token_id: 900",
    ):
        assert words in found
    assert len(error.value.problems) == 4


def test_no_texts() -> None:
    with pytest.raises(DataError, match="no text"):
        prune_vocabulary(*translator("marian"), [""])


# --- the teacher's words --------------------------------------------------------------------------


def test_words_that_lose_pieces_by_hand() -> None:
    logs = np.log(np.asarray([[0.5, 0.25], [0.5, 0.25], [0.5, 0.25]])).astype(np.float16)
    others = np.log(np.full(3, 0.25)).astype(np.float16)
    words = Words(np.asarray([[9, 4], [5, 9], [5, 7]], np.uint16), logs, others, np.asarray([0, 2, 3]), 2.0)
    found = renumbered(words, [0, 4, 9, 20], absent=0)
    assert found.pieces.tolist() == [[2, 1], [0, 2], [0, 0]]
    np.testing.assert_allclose(np.exp(found.others.astype(float)), [0.25, 0.75, 1.0], rtol=1e-3)
    assert found.logs[:, 0].tolist() == [logs[0, 0], SMALLEST, SMALLEST] and found.logs[2, 1] == SMALLEST
    assert (found.pieces.dtype, found.logs.dtype, found.others.dtype) == (np.uint16, np.float16, np.float16)
    for row in (0, 1):
        np.testing.assert_allclose(np.exp(found.of(row)[1]).sum(axis=1), 1, rtol=1e-5)


def test_words_follow_their_tokenizer_and_no_other() -> None:
    model, tokenizer = translator("mbart")
    pruned: Pruned = prune_vocabulary(model, tokenizer, TEXTS)
    the = tokenizer.convert_tokens_to_ids("▁the")
    words = Words(np.asarray([[the]]), np.zeros((1, 1), np.float16), np.zeros(1, np.float16), np.asarray([0, 1]), 1.0)
    found = Translations(("a" * 16,), ("the",), (True,), words, "t", tokenizer_sum(tokenizer))
    mapped = for_vocabulary(found, tokenizer, pruned)
    assert mapped.tokenizer == tokenizer_sum(pruned.tokenizer)
    assert mapped.words is not None
    assert mapped.words.pieces.tolist() == [[pruned.tokenizer.convert_tokens_to_ids("▁the")]]
    assert for_vocabulary(found, t5(), pruned) is found


# --- in a run -------------------------------------------------------------------------------------


def test_a_classifier_of_a_run(project: Project, finished_run: Path, tmp_path: Path) -> None:
    from command_runs import copy_steps

    folder = copy_steps(finished_run, tmp_path / "run", "teacher", "signals")
    made = steps.run_student(
        opened(project, folder, student={"layers": 1, "vocabulary": "used", "training": {"max_steps": 2}})
    )
    before, after = made["result"]["vocabulary"]["before"], made["result"]["vocabulary"]["after"]
    assert after["pieces"] == len(load_tokenizer(folder / "student")) < before["pieces"]
    assert read_json(folder / "student" / "config.json")["vocab_size"] == after["pieces"]


@pytest.mark.parametrize("words", [0, 4])
def test_a_translator_of_a_run(words: int, tmp_path: Path) -> None:
    model, tokenizer = translator("mbart")
    model.final_logits_bias[0, 2] += 40
    model.generation_config.update(min_length=5)  # so that translations end soon, but not at once
    save(model, tokenizer, TASK, tmp_path / "mbart")
    languages = {"source_language": "en_XX", "target_language": "it_IT"}
    project = write_translation_project(
        tmp_path / "toy",
        rows=24,
        task={"kind": "translation", "text": "there", "target": "back", "max_length": 16, **languages},
        teacher={"model": str(tmp_path / "mbart"), "training": None},
        vocabulary=None,
        label={"beams": 2, "word_logits": words},
        student={
            "decoder_layers": 1,
            "vocabulary": "used",
            "targets": "both",
            "training": {**TRAINING, "max_steps": 2},
        },
    )
    run_ = opened(project, tmp_path / "run")
    for step in (steps.run_teach, steps.run_label, steps.run_student):
        made = step(run_)
    student = tmp_path / "run" / "student"
    small = load_tokenizer(student)
    assert made["result"]["pairs"] > len(run_.dataset.splits["train"]), "some of the teacher's translations ended"
    assert made["result"]["vocabulary"]["after"]["pieces"] == len(small) < len(tokenizer)
    kept: Any = load_seq2seq(student)
    assert kept.get_input_embeddings().weight.shape[0] == len(small)
    assert kept.generation_config.forced_bos_token_id == small.convert_tokens_to_ids("it_IT")
    for text in (*run_.dataset.splits["train"].texts, *translations.read(tmp_path / "run" / "signals").texts):
        assert small.tokenize(text) == tokenizer.tokenize(text)
