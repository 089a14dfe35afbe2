"""The README.md of a bundle."""

from __future__ import annotations

import pytest

from distill.task import Task
from export.bundle import FileEntry
from export.card import card

pytestmark = pytest.mark.runtime

TASK = Task("classification", ("no", "yes"), max_length=64)
FILES = {"onnx/model.onnx": FileEntry(12, "ab" * 32)}


def test_a_card_says_what_is_needed_to_embed() -> None:
    text = card(TASK, "int8-static", 20, "onnx/model.onnx", FILES, {})
    for wanted in (
        "# potstill bundle",
        "| labels | no, yes |",
        "| input | one text |",
        "| precision | int8-static |",
        "64 tokens",
        "pip install 'potstill[cpu]'",
        'model = load("path/to/this/folder")\nmodel(["a text"])',
        f"| `onnx/model.onnx` | 12 | `{'ab' * 32}` |",
    ):
        assert wanted in text
    assert "## Measured" not in text


def test_pairs_are_shown_as_pairs() -> None:
    text = card(Task("classification", ("no", "yes"), pair="other"), "fp32", 20, "m", FILES, {})
    assert "| input | two texts |" in text
    assert 'model([("first text", "second text")])' in text


def test_whatever_was_measured_becomes_a_table() -> None:
    details = {
        "name": "sentiment",
        "quality": [{"metric": "accuracy", "value": 0.86123, "n": 853}],
        "parity": {"max_abs": 3.2e-7, "agreement": 1.0},
        "methods": ["dynamic", "static"],
    }
    text = card(TASK, "fp32", 20, "m", FILES, details)
    assert "# sentiment\n" in text
    for row in (
        "| quality.0.metric | accuracy |",
        "| quality.0.value | 0.8612 |",
        "| quality.0.n | 853 |",
        "| parity.max_abs | 3.2e-07 |",
        "| methods | dynamic, static |",
    ):
        assert row in text
    assert "| name |" not in text


def test_labels_cannot_break_the_card() -> None:
    task = Task("classification", ("a|b\n# no", "<script>"))
    text = card(task, "fp32", 20, "m", FILES, {"name": "x\n---\n<b>"})
    assert "a\\|b # no, &lt;script&gt;" in text
    assert "# x --- &lt;b&gt;\n" in text
    assert "<script>" not in text
