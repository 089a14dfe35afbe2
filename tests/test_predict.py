"""Answering lines on the command line, whatever the bundle's task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from compress.cli import compress

pytestmark = pytest.mark.runtime

DATA = Path(__file__).resolve().parent / "data"
EXPECTED = json.loads((DATA / "golden-translation-expected.json").read_text(encoding="utf-8"))


def said(*arguments: str, stdin: str | None = None) -> list[str]:
    done = CliRunner().invoke(compress, ["predict", *arguments, "--threads", "1"], input=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_a_translator_answers_with_translations() -> None:
    texts, answers = EXPECTED["texts"][2:6], [each["text"] for each in EXPECTED["fp32"]["greedy"][2:6]]
    assert said(str(DATA / "golden-translation"), *texts) == answers
    assert said(str(DATA / "golden-translation"), stdin="\n".join(texts) + "\n") == answers


def test_a_translation_as_json() -> None:
    [line] = said(str(DATA / "golden-translation"), EXPECTED["texts"][2], "--json")
    found = json.loads(line)
    assert found["text"] == EXPECTED["fp32"]["greedy"][2]["text"]
    assert set(found) == {"text", "score", "truncated", "stopped", "others"}


def test_a_classifier_answers_with_label_score_and_text() -> None:
    [line] = said(str(DATA / "golden-bundle"), "a gorgeous film")
    label, score, text = line.split("\t")
    assert (label, text) == ("neutral", "a gorgeous film")
    assert 1 / 3 < float(score) < 1


def test_verify_takes_both() -> None:
    for name in ("golden-translation", "golden-bundle"):
        done = CliRunner().invoke(compress, ["verify", str(DATA / name)])
        assert done.exit_code == 0
        assert "whole and answers" in done.stdout
