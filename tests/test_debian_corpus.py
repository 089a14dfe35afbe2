"""Sentence pairs out of package descriptions, as apt stores them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "recipes" / "debian_corpus.py"))
ENGLISH = """\
Package: one
Description-md5: aaa
Description-en: small game of chess
 It is played by two. Both need
 time.
 .
 Features:
  * a clock for both
  * no undo
 .
 The end.

Package: two
Description-md5: bbb
Description-en: only in English

Package: three
Description-md5: ccc
Description-en: small game of chess
"""
ITALIAN = """\
Package: three
Description-md5: ccc
Description-it: piccolo gioco di scacchi

Package: one
Description-md5: aaa
Description-it: piccolo gioco di scacchi
 Si gioca in due. Entrambi hanno bisogno
 di tempo.
 .
 Caratteristiche:
  * un orologio per entrambi
  * nessun annullamento
 .
 La fine. Davvero.
"""


def test_paragraphs_by_checksum() -> None:
    found = SCRIPT["descriptions"](ENGLISH.split("\n"))
    assert found == {
        "aaa": [
            "small game of chess",
            "It is played by two. Both need time.",
            "Features:",
            "* a clock for both",
            "* no undo",
            "The end.",
        ],
        "bbb": ["only in English"],
        "ccc": ["small game of chess"],
    }


def test_sentences_that_translate_each_other(tmp_path: Path) -> None:
    for name, text in (("en", ENGLISH), ("it", ITALIAN)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    out = tmp_path / "corpus.tsv"
    arguments = [str(tmp_path / "en"), str(tmp_path / "it"), "-o", str(out)]
    done = CliRunner().invoke(SCRIPT["corpus"], arguments)
    assert done.output == f"wrote 6 pairs to {out}\n"
    assert out.read_text(encoding="utf-8").splitlines() == [
        "small game of chess\tpiccolo gioco di scacchi",
        "It is played by two.\tSi gioca in due.",
        "Both need time.\tEntrambi hanno bisogno di tempo.",
        "* a clock for both\t* un orologio per entrambi",
        "* no undo\t* nessun annullamento",
        "The end.\tLa fine. Davvero.",
    ]


def test_sentences_without_a_translation(tmp_path: Path) -> None:
    for name, text in (("en", ENGLISH), ("it", ITALIAN)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    out, rest = tmp_path / "corpus.tsv", tmp_path / "rest.txt"
    arguments = [str(tmp_path / "en"), str(tmp_path / "it"), "-o", str(out), "--rest", str(rest)]
    done = CliRunner().invoke(SCRIPT["corpus"], arguments)
    left = rest.read_text(encoding="utf-8").splitlines()
    assert done.output.endswith(f"wrote {len(left)} sentences to {rest}\n")
    paired = {line.split("\t")[0] for line in out.read_text(encoding="utf-8").splitlines()}
    assert "only in English" in left and not paired & set(left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (["a b", "c d"], ["a b"]),  # another number of paragraphs
        (["the same words"], ["the same words"]),
        (["word"], ["parola"]),  # nothing to learn from a single word
        ([" ".join(["word"] * 31)], ["due parole"]),
    ],
)
def test_pairs_that_are_left_out(left: list[str], right: list[str]) -> None:
    assert list(SCRIPT["pairs"]({"x": left}, {"x": right})) == []


def test_a_pair_is_written_once() -> None:
    assert list(SCRIPT["pairs"]({"x": ["a b"], "y": ["a b"]}, {"y": ["c d"], "x": ["c d"]})) == [("a b", "c d")]
