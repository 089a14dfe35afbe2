"""Sources and targets that are divided in different ways, from a pretrained teacher to its bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from command_runs import Project, command
from test_marian_tokenizer import ENGLISH, ITALIAN, both, folder  # noqa: F401  (a fixture)
from tokenizers import Tokenizer
from translation_models import tiny_translator
from vocabularies import mbart50, t5

import potstill
from distill.checkpoint import load_tokenizer
from distill.errors import CheckpointError, RecipeError
from distill.smaller_tokenizer import shrink_tokenizer
from distill.two_sided import TARGET, with_prefix

PREFIX = "the dog: "


def test_the_prefix_stands_before_sources_alone() -> None:
    plain, made = t5(), with_prefix(t5(), PREFIX)
    expected = plain(PREFIX + "the cat sleeps")["input_ids"]
    assert made("the cat sleeps")["input_ids"] == expected
    assert made(["the cat sleeps", ""])["input_ids"][0] == expected
    assert made(text_target="the cat")["input_ids"] == plain("the cat")["input_ids"]
    assert made("")["input_ids"] == plain(PREFIX)["input_ids"]
    assert made.decode(made("the cat")["input_ids"], skip_special_tokens=True).endswith("the cat")


def test_a_cut_source_keeps_its_prefix() -> None:
    before = len(t5()(PREFIX)["input_ids"])
    ids = with_prefix(t5(), PREFIX)("the cat sleeps " * 20, truncation=True, max_length=before + 4)["input_ids"]
    assert len(ids) == before + 4
    assert ids[: before - 1] == t5()(PREFIX)["input_ids"][:-1] and ids[-1] == t5().eos_token_id


def test_written_and_read_again(tmp_path: Path) -> None:
    made = with_prefix(t5(), PREFIX)
    made.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    for text in ("the cat", "il gatto dorme"):
        assert again(text)["input_ids"] == made(text)["input_ids"]
        assert again(text_target=text)["input_ids"] == made(text_target=text)["input_ids"]
        alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        assert alone.encode(text).ids == made(text)["input_ids"], "what a bundle carries"
    (tmp_path / TARGET).write_text("{")
    with pytest.raises(CheckpointError, match=r"target_tokenizer\.json cannot be read"):
        load_tokenizer(tmp_path)


def test_what_cannot_be() -> None:
    with pytest.raises(RecipeError, match="marks sources with their language"):
        with_prefix(mbart50(), PREFIX)
    with pytest.raises(RecipeError, match="makes no tokens of ' '"):
        with_prefix(t5(), " ")
    with pytest.raises(CheckpointError, match="divided by two tokenizers"):
        shrink_tokenizer(with_prefix(t5(), PREFIX), ["the cat"])


def project(place: Path, teacher: dict[str, Any]) -> Project:
    """A recipe with a pretrained teacher, and a few pairs."""
    pairs = [
        (f"{a} {b}", f"{c} {d}") for a, c in zip(ENGLISH, ITALIAN, strict=False) for b, d in (("cat", "cane"), ("", ""))
    ]
    (place / "pairs.tsv").write_text("".join(f"{a.strip()}\t{b.strip()}\n" for a, b in pairs))
    training = {"num_train_epochs": 1, "tokens_per_batch": 400, "bf16": False}
    recipe = {
        "name": "two-sided",
        "data": {"source": "pairs.tsv", "columns": ["en", "it"], "split": {"validation": 0.2, "test": 0.2}},
        "task": {"kind": "translation", "text": "en", "target": "it", "max_length": 24},
        "teacher": {"training": training, **teacher},
        "label": {"beams": 2, "word_logits": 3},
        "student": {"decoder_layers": 1, "temperature": 1.0, "targets": "both", "training": training},
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    return Project(place)


def shipped(made: Project, run: Path) -> Path:
    """Teach, label, distil and export."""
    for step in ("teach", "label", "student"):
        ended = command("distill", step, made.recipe, "-o", run, watched=run)
        assert ended.code == 0, ended.err
    ended = command("compress", "export", made.recipe, "-o", run, watched=run)
    assert ended.code == 0, ended.err
    return run / "fp32"


def test_a_marian_teacher_as_the_hub_has_it(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    teacher = shutil.copytree(folder, tmp_path / "opus")
    theirs = both(folder)[1]
    ids = {"pad_token_id": theirs.pad_token_id, "eos_token_id": 0, "decoder_start_token_id": theirs.pad_token_id}
    model = tiny_translator("marian", **ids, vocab_size=len(theirs), bos_token_id=None)
    model.generation_config.update(bad_words_ids=[[theirs.pad_token_id]], max_length=24, **ids)
    model.save_pretrained(teacher)
    run = tmp_path / "run"
    bundle = shipped(project(tmp_path, {"model": "opus"}), run)
    student = transformers.AutoModelForSeq2SeqLM.from_pretrained(run / "student")
    text = ENGLISH[0]
    expected = student.generate(**theirs([text], return_tensors="pt"), max_new_tokens=24, num_beams=1)
    [found] = potstill.load(bundle)([text], beams=1)
    assert found.text == theirs.decode(expected[0], skip_special_tokens=True)


def test_a_t5_teacher_with_its_prefix(tmp_path: Path) -> None:
    tokenizer = t5()
    tiny_translator("t5", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    run = tmp_path / "run"
    bundle = shipped(project(tmp_path, {"model": "t5", "source_prefix": PREFIX}), run)
    student = transformers.AutoModelForSeq2SeqLM.from_pretrained(run / "student")
    expected = student.generate(**tokenizer([PREFIX + "the cat"], return_tensors="pt"), max_new_tokens=24, num_beams=1)
    [found] = potstill.load(bundle)(["the cat"], beams=1)
    assert found.text == tokenizer.decode(expected[0], skip_special_tokens=True)
