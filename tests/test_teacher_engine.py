"""A teacher in onnxruntime says what it says in torch; what has no graph is asked in torch, and said so."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from translation_models import TASK, toy_sources, write_translator

from distill.checkpoint import load_tokenizer
from distill.errors import CheckpointError, MissingExtraError
from distill.seq2seq import load_seq2seq
from distill.tasks.translation import _engine
from distill.translate import Engine, Search, translate
from export.seq2seq.teacher import open_teacher

TEXTS = [*toy_sources(12), "gatto", ""]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_translator(tmp_path_factory.mktemp("checkpoint") / "marian")


@pytest.mark.parametrize(
    "search", [Search(), Search(4, 4, 0.6, 40), Search(3, 2, 1.0, 1)], ids=["greedy", "beams", "one at a time"]
)
def test_both_engines_answer_alike(checkpoint: Path, tmp_path: Path, search: Search) -> None:
    model, tokenizer = load_seq2seq(checkpoint), load_tokenizer(checkpoint)
    found = open_teacher(model, tokenizer, checkpoint, TASK, tmp_path)(TEXTS, search)
    expected = translate(model, tokenizer, TEXTS, TASK, search)
    assert found[:-1] == expected[:-1]
    assert [each.text for each in found[-1]] == [""], "an empty text has an empty translation"
    assert {len(each) for each in found[:-1]} == {search.n_best}
    assert {hypothesis.ended for each in found for hypothesis in each} == {True, False}
    assert not list(tmp_path.iterdir()), "the graph does not stay"


def unexportable(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint whose search the graph's runtime does not have."""
    import shutil

    shutil.copytree(checkpoint, folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "repetition_penalty": 2.0}))
    return folder


def test_which_engine_is_taken(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = unexportable(checkpoint, tmp_path / "other")
    work = tmp_path / "work"
    work.mkdir()

    def engine(chosen: str, source: Path) -> Engine | None:
        return _engine(chosen, load_seq2seq(source), load_tokenizer(source), source, TASK, work)

    assert engine("torch", checkpoint) is None
    assert engine("auto", checkpoint) is not None
    with caplog.at_level(logging.WARNING, logger="potstill"):
        assert engine("auto", other) is None
    assert "translates in torch, which is slower: generation config: repetition_penalty" in caplog.text
    with pytest.raises(CheckpointError, match="cannot be exported"):
        engine("onnx", other)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert engine("auto", checkpoint) is None
    assert engine("onnx", checkpoint) is not None
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with caplog.at_level(logging.WARNING, logger="potstill"):
        assert engine("auto", checkpoint) is None
    assert "running a bundle needs onnxruntime" in caplog.text
    with pytest.raises(MissingExtraError):
        engine("onnx", checkpoint)
