"""`compress vocabulary` on folders, and the measurement at mBART-large-50's size in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_smaller_vocabulary import TASK, translator

from compress.cli import compress
from compress.large_translation import SENTENCES, pieces_for, sentences
from compress.vocabulary import prune_folder, texts_of
from distill.checkpoint import load_tokenizer, save
from distill.errors import CheckpointError, DataError, RunError
from distill.seq2seq import load_seq2seq


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save(*translator("mbart"), TASK, tmp_path / "mbart")
    return tmp_path / "mbart"


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("pairs.tsv", 'the cat\til gatto\n"a" dog\tun cane\n', ["the cat", "il gatto", '"a" dog', "un cane"]),
        ("rows.csv", 'text,label\n"a, b",1\n', ["text", "label", "a, b", "1"]),
        ("rows.jsonl", '{"text": "a", "n": 3, "none": null}\n', ["text", "n", "none", "a"]),
        ("lines.txt", "the cat\n\nil gatto\n", ["text", "the cat", "il gatto"]),
    ],
)
def test_every_cell_is_a_text(tmp_path: Path, name: str, content: str, texts: list[str]) -> None:
    (tmp_path / name).write_text(content)
    assert list(texts_of(tmp_path / name)) == texts


def test_broken_rows_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b,c\n")
    with pytest.raises(DataError, match=r"rows\.csv: 1 row") as error:
        list(texts_of(tmp_path / "rows.csv"))
    assert "rows.csv:2" in error.value.problems[0]


def test_the_command(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("the cat\til gatto\n")
    arguments = ["vocabulary", str(checkpoint), str(tmp_path / "pairs.tsv"), "-o"]
    done = CliRunner().invoke(compress, [*arguments, str(tmp_path / "small")])
    assert done.exit_code == 0, done.output
    before, after = len(load_tokenizer(checkpoint)), len(load_tokenizer(tmp_path / "small"))
    assert f": {before} -> {after} pieces, " in done.output and after < before
    assert (tmp_path / "small" / "task.json").read_bytes() == (checkpoint / "task.json").read_bytes()
    assert load_seq2seq(tmp_path / "small").get_input_embeddings().weight.shape[0] == after  # type: ignore[operator]
    (checkpoint / "task.json").unlink()
    done = CliRunner().invoke(compress, [*arguments, str(tmp_path / "foreign"), "--json"])
    assert json.loads(done.stdout)["after"]["pieces"] == after
    assert not (tmp_path / "foreign" / "task.json").exists()


def test_what_cannot_be(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("the cat\til gatto\n")
    with pytest.raises(RunError, match="exists already"):
        prune_folder(checkpoint, [tmp_path / "pairs.tsv"], checkpoint)
    with pytest.raises(CheckpointError, match="no such folder"):
        prune_folder(tmp_path / "nothing", [tmp_path / "pairs.tsv"], tmp_path / "small")
    with pytest.raises(DataError, match="cannot read this kind of file"):
        prune_folder(checkpoint, [tmp_path / "pairs.doc"], tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_the_large_corpus_and_its_pieces() -> None:
    texts = list(sentences(30))
    assert texts == list(sentences(30)) and len(texts) < SENTENCES
    assert all(4 <= len(text.split()) <= 20 for text in texts)
    pieces = dict(pieces_for(texts, 5000))
    assert len(pieces) == 5000
    words = {word for text in texts for word in text.split()}
    assert {f"▁{word}" for word in words} | set("".join(words)) | {"▁"} <= pieces.keys()
    assert max(pieces, key=pieces.__getitem__) == "▁" and min(pieces.values()) > -20
