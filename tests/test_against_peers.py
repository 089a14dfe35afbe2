"""The table of goals beside other engines, and one work from its model to its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.peers import environments
from compress.against_peers import _mapped, translation
from compress.large_translation import sentences
from compress.peer_goals import LARGE, OWN_FILE, SHORTLIST, SMALL, Shape, goals, work_of
from compress.peer_picture import ratios, write_ratios
from distill.progress import Bars
from distill.report import Latency, Report, Size
from export.seq2seq.stacks import COMMON, NEAR

ENCODER = "encoder 6x384"


def row(model: str, runtime: str, p50: float, speedup: float | None = None, **other: object) -> Latency:
    found = Latency(
        model, runtime, "int8", "cpu", 1, 1, 64, p50, p50, p50, 1.0, 9, method="dynamic",
        speedup=speedup, speedup_low=speedup and speedup - 0.1, speedup_high=speedup and speedup + 0.1,
    )  # fmt: skip
    found = replace(found, **other)  # type: ignore[arg-type]
    return replace(found, work=work_of(found))


def test_works_have_names() -> None:
    assert row(ENCODER, "onnxruntime", 1).work == "encoder 6x384, 1x64"
    assert row(OWN_FILE, "openvino", 1).work == "encoder 6x384, 1x64"
    assert row(ENCODER, "openvino", 1, work="text", batch=32).work == "encoder 6x384, 32 sentences"
    assert row(SMALL, "ctranslate2", 1, work="text", beams=1).work == "translation 6-2x256, greedy, batch 1"
    assert row(LARGE, "ctranslate2", 1, work="text", beams=4, batch=16).work == "translation 6-6x512, 4 beams, batch 16"


def test_ours_is_compared_with_the_fastest_other_engine() -> None:
    latency = (
        row(ENCODER, "onnxruntime", 4),
        row(ENCODER, "onnxruntime", 3, 1.33, method="static"),
        row(ENCODER, "onnxruntime", 2, 2.0, precision="fp32"),
        row(ENCODER, "openvino", 5, 0.8),
        row(ENCODER, "optimum", 8, 0.5),
        row(OWN_FILE, "openvino", 5.5, 0.7),
        row(SMALL, "onnxruntime", 4, beams=1),  # no other engine ran
        row(SMALL + SHORTLIST, "onnxruntime", 3, beams=1, work="text", p50_low_ms=2.7, p50_high_ms=3.3),
        row(SMALL + SHORTLIST, "ctranslate2", 4, beams=1, work="text", p50_low_ms=3.6, p50_high_ms=4.5),
    )
    sizes = (
        Size(SMALL, "int8", 12, "onnxruntime", weights_bytes=11_000_000),
        Size(SMALL, "int8", 12, "ctranslate2", weights_bytes=10_000_000),
        Size(SMALL, "fp32", 12, "onnxruntime", weights_bytes=44_000_000),
    )
    lines = goals(Report("peers", latency=latency, size=sizes)).splitlines()[2:]
    assert lines == [
        "| encoder 6x384, 1x64 | 4.00 ms | openvino 5.00 ms | 0.80 [0.70, 0.90] | 0.95 |",
        f"| {SMALL}, greedy, batch 1, shortlist | 3.00 ms | ctranslate2 4.00 ms | 0.75 [0.60, 0.92] | 0.67 |",
        "| encoder 6x384, 1x64, our static file in OpenVINO | 5.50 ms | openvino 5.00 ms | 1.10 [1.10, 1.10] | 1.05 |",
        "| translation 6-2x256, weights | 11.0 MB | ctranslate2 10.0 MB | 1.10 | 1.05 |",
    ]


def test_a_picture_of_what_ran_beside_ours(tmp_path: Path) -> None:
    latency = (
        row(ENCODER, "onnxruntime", 4),
        row(ENCODER, "onnxruntime", 2, 2.0, precision="fp32"),
        row(ENCODER, "torch", 40, 0.15, precision="fp32"),
        row(ENCODER, "openvino", 5, 0.8),
        row(ENCODER, "openvino", 9, 0.4, precision="fp32"),
        row(OWN_FILE, "openvino", 5.5, 0.7),
        row(SMALL, "onnxruntime", 4, beams=1, work="text"),
        row(SMALL + SHORTLIST, "ctranslate2", 3, 1.1, beams=1, work="text"),
    )
    found = ratios(Report("peers", latency=latency))
    assert {work: [each.runtime for each in rows] for work, rows in found.items()} == {
        "encoder 6x384, 1x64": ["torch", "openvino"]
    }
    write_ratios(found, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_a_shortlist_in_ctranslate2s_form(tmp_path: Path) -> None:
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / "tokens.json").write_text('["a", "b", "</s>"]')
    known = {NEAR: np.array([[0, 1], [1, 0], [2, 2]]), COMMON: np.array([1, 2])}
    found = _mapped(tmp_path / "peer", known, Shape(1, 1, 16, 32, 3), tmp_path / "mapped")
    assert (found.folder / "vmap.txt").read_text() == "\tb </s>\na\ta b\nb\tb a\n</s>\t</s> </s>\n"
    assert found.name == "translation 1-1x16, shortlist ctranslate2 int8"


def test_one_work_and_engines_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "none")
    shape = Shape(1, 1, 16, 32, 400)
    found = translation(shape, list(sentences(300)), tmp_path / "work", 0.05, Bars(quiet=True))
    ours = [each for each in found.latency if each.runtime == "onnxruntime" and each.precision == "int8"]
    assert {each.work for each in ours} == {
        f"translation 1-1x16, {search}, batch {batch}" for search in ("greedy", "4 beams") for batch in (1, 16, 32)
    }
    assert {each.new_tokens for each in found.latency} == {30.0}
    assert {each.runtime for each in found.size} == {"onnxruntime", "torch"}
    assert sum("run `make peers`" in note for note in found.notes) == 2  # openvino is not asked to translate
    again = translation(shape, list(sentences(300)), tmp_path / "work", 0.05, Bars(quiet=True))
    assert [each.key for each in again.latency] == [each.key for each in found.latency]
