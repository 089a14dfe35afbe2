"""Encoder-decoders become bundles that answer like torch."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from translation_models import toy_sources, write_translator

from distill.data import Split
from export.bundle import read_bundle
from export.graph import export
from export.runtime import load

EXAMPLES = Split(toy_sources(20), None, ())


@pytest.mark.parametrize("kind", ["marian", "bart", "mbart", "m2m_100", "t5", "t5-gated"])
def test_every_architecture_answers_like_torch(kind: str, tmp_path: Path) -> None:
    checkpoint = write_translator(tmp_path / "checkpoint", kind)
    bundle = export(checkpoint, tmp_path / "bundle", opset=20, atol=1e-3, examples=EXAMPLES)
    parity = bundle.details["parity"]
    assert parity["max_abs"] < 1e-3
    assert parity["greedy"] == {"same": 1.0, "n": 20}
    assert parity["beams_4"] == {"same": 1.0, "n": 20}
    assert read_bundle(bundle.folder).task.kind == "translation"
    answers = load(bundle.folder)(EXAMPLES.texts)
    assert len({answer.text for answer in answers}) > 1  # sources are told apart
