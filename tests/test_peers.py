"""Other engines: the talk with their processes, and what is said of those that are not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from test_bench_translation import DATASET, SOURCES, SPLIT, write_translator
from test_measure import QUICK, dataset, split

from bench.backends import Classifier, Translating, open_candidate, own_time
from bench.candidates import Candidate, from_bundle, from_checkpoint, from_folder, kind_of, longest, size, task_of
from bench.measure import measure_folders, with_peers
from bench.peers import environments
from bench.peers.environments import ROOT
from bench.peers.prepare import make_peer, peers_of
from bench.peers.with_ctranslate2 import _tokens
from distill.data import Dataset
from distill.errors import ProviderError, RecipeError, RunError
from distill.recipe import BenchRecipe
from export.graph import export

SUMS = """
import sys, time
from bench.peers.serve import main

class Sums:
    def __init__(self, folder, precision, threads):
        print("a library that chatters", folder, precision, threads)

    def logits(self, ids, mask):
        time.sleep(0.02)
        return (ids * mask).sum(1, keepdims=True).tolist()

    def translate(self, ids, mask, beams, least, most):
        if beams > 4:
            raise ValueError("too wide")
        return [row[:most] for row in ids.tolist()]

main(Sums, None)
"""


def ask(*questions: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """What a process answers, and what it says besides."""
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run(
        [sys.executable, "-c", SUMS, "serve", "folder", "int8", "3"],
        input=lines, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_question_a_line_an_answer_a_line() -> None:
    ids, mask = [[1, 2, 3], [4, 5, 6]], [[1, 1, 1], [1, 1, 0]]
    rules = {"least": 0, "most": 2}
    answers, said = ask(
        {"ids": ids, "mask": mask},
        {"ids": ids, "mask": mask, "beams": 4, **rules},
        {"ids": ids, "mask": mask, "beams": 5, **rules},
        {"ids": ids, "mask": mask},
    )
    assert "a library that chatters folder int8 3" in said
    assert answers[0] == {"ready": True}
    assert answers[1]["answer"] == [[6], [9]] and 20 <= answers[1]["milliseconds"] < 2000
    assert answers[2]["answer"] == [[1, 2], [4, 5]]
    assert "too wide" in answers[3]["error"] and "answer" not in answers[3]
    assert answers[4]["answer"] == [[6], [9]], "an error ends nothing"


@pytest.fixture(scope="module")
def classifier(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    """A classifier and its fp32 bundle."""
    folder = tmp_path_factory.mktemp("classifier") / "fp32"
    export(tiny_checkpoint, folder, opset=20, atol=1e-4, examples=split(10, 4))
    return [from_checkpoint("student", tiny_checkpoint), from_bundle("student", folder)]


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    """A translator and its fp32 bundle."""
    return write_translators(tmp_path_factory.mktemp("translator"))


def write_translators(folder: Path, **changes: Any) -> list[Candidate]:
    checkpoint = write_translator(folder / "student", **changes)
    export(checkpoint, folder / "fp32", opset=20, atol=1e-4, examples=SPLIT)
    return [from_checkpoint("student", checkpoint), from_bundle("student", folder / "fp32")]


def test_a_peer_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classifier: list[Candidate]
) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "none")
    found, notes = peers_of(classifier, ["torch", "openvino", "ctranslate2"], ["a text"], tmp_path / "peers")
    assert not found
    assert notes == [
        "openvino left out: openvino is not installed beside potstill: run `make peers` in its folder",
        "ctranslate2 left out: it is compared in translation alone",
    ]
    assert not (tmp_path / "peers" / "openvino").exists(), "nothing half made"
    with with_peers(classifier, BenchRecipe(against=("openvino",)), None) as (candidates, left_out):
        assert (candidates, len(left_out)) == (classifier, 1)
    for lacking, kind in ((classifier[:1], "an fp32 bundle"), (classifier[1:], "a checkpoint")):
        with pytest.raises(RecipeError, match=f"{kind} is missing"):
            peers_of(lacking, ["openvino"], ["a text"], tmp_path)


@pytest.mark.parametrize("key", ["potstill_ranks", "potstill_layer_sizes", "potstill_channels"])
def test_a_peer_that_cannot_build_smaller_layers_is_named(
    key: str, translator: list[Candidate], tmp_path: Path
) -> None:
    """transformers fills what it does not find with random numbers: such a peer would be measured, and wrong."""
    folder = Path(shutil.copytree(translator[0].folder, tmp_path / "student"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: {}}))
    smaller = [from_checkpoint("student", folder), translator[1]]
    found, notes = peers_of(smaller, ["ctranslate2", "optimum"], ["a text"], tmp_path / "peers")
    assert not found and len(notes) == 2
    assert all(note.endswith("left out: it cannot build layers that potstill made smaller") for note in notes)


def installed(name: str) -> bool:
    return (environments.ENVIRONMENTS / name / "bin" / "python").exists()


@pytest.mark.parametrize("name", ["openvino", "optimum"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_classifier_in_other_engines(name: str, precision: str, classifier: list[Candidate], tmp_path: Path) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed (make peers)")
    task, texts = task_of(classifier[0]), split(40, 1).texts
    assert task is not None
    folder = make_peer(name, precision, task, classifier[0].folder, classifier[1].folder, texts, tmp_path / name)
    peer = from_folder(folder, "student")
    assert (peer.runtime, peer.precision, kind_of(peer), longest(peer)) == (name, precision, "classification", 64)
    assert size(peer).weights_bytes
    with open_candidate(peer, 1, "cpu") as theirs, open_candidate(classifier[1], 1, "cpu") as ours:
        found, expected = (cast(Classifier, each).logits(texts, 8) for each in (theirs, ours))
        assert np.abs(found - expected).max() < (1e-2 if precision == "fp32" else 0.5)
        assert own_time(theirs) and own_time(ours) is None


@pytest.mark.parametrize("name", ["ctranslate2", "optimum"])
@pytest.mark.parametrize("beams", [1, 4])
def test_a_translator_in_other_engines(name: str, beams: int, translator: list[Candidate], tmp_path: Path) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed (make peers)")
    if name == "optimum":  # its export takes one number of heads for both sides
        translator = write_translators(tmp_path, decoder_attention_heads=4)
    task = task_of(translator[0])
    assert task is not None
    folder = make_peer(name, "fp32", task, translator[0].folder, translator[1].folder, SOURCES, tmp_path / name)
    peer = from_folder(folder, "student")
    with open_candidate(peer, 1, "cpu") as theirs, open_candidate(translator[1], 1, "cpu") as ours:
        found, expected = (cast(Translating, each).translate(SOURCES, beams) for each in (theirs, ours))
        assert [each.text for each in found] == [each.text for each in expected]
        theirs.run({"input_ids": np.ones((2, 5), np.int64), "attention_mask": np.ones((2, 5), np.int64)})
        assert own_time(theirs)


@pytest.mark.parametrize("name", ["ctranslate2", "optimum"])
def test_a_translator_in_int8_answers(name: str, tmp_path: Path) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed (make peers)")
    own = write_translators(tmp_path, decoder_attention_heads=4)
    task, weights = task_of(own[0]), {}
    assert task is not None
    for precision in ("fp32", "int8"):
        folder = make_peer(name, precision, task, own[0].folder, own[1].folder, SOURCES, tmp_path / f"peer-{precision}")
        weights[precision] = size(from_folder(folder)).weights_bytes or 0
    assert 0 < weights["int8"] != weights["fp32"], (
        "of so small a model int8 need not be smaller, but it is another file"
    )
    with open_candidate(from_folder(folder), 1, "cpu") as theirs:
        assert all(each.tokens for each in cast(Translating, theirs).translate(SOURCES, 1))


REPORTS = [
    ("classifier", dataset(), "openvino", "ctranslate2 left out: it is compared in translation alone"),
    ("translator", DATASET, "ctranslate2", "openvino left out: it is compared in classification alone"),
]


@pytest.mark.parametrize(("models", "data", "name", "left_out"), REPORTS)
def test_a_report_with_peers(
    models: str, data: Dataset, name: str, left_out: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed (make peers)")
    folders = [candidate.folder for candidate in request.getfixturevalue(models)]
    settings = QUICK.model_copy(update={"lengths": (8,), "against": ("torch", "openvino", "ctranslate2")})
    report = measure_folders("toy", folders, settings, tmp_path / "report", data)
    for rows in (report.quality, report.latency, report.size):
        assert [row.precision for row in rows if row.runtime == name]
    assert name not in {row.runtime for row in report.memory}
    forms = [row.b for row in report.parity]
    assert len(forms) == 1 and forms[0].endswith(f" {name} int8"), "what the peer lost, held against our fp32"
    assert left_out in report.notes
    assert name in (tmp_path / "report" / "report.md").read_text()


def test_a_folder_that_is_damaged_ends_with_what_the_peer_said(translator: list[Candidate], tmp_path: Path) -> None:
    if not installed("ctranslate2"):
        pytest.skip("ctranslate2 is not installed (make peers)")
    task = task_of(translator[0])
    assert task is not None
    folder = make_peer("ctranslate2", "int8", task, translator[0].folder, translator[1].folder, (), tmp_path / "peer")
    (folder / "model.bin").write_bytes(b"")
    with pytest.raises(RunError, match=r"ctranslate2 failed: .*model"), open_candidate(from_folder(folder), 1, "cpu"):
        pass
    with pytest.raises(ProviderError, match="on the processor alone"), open_candidate(from_folder(folder), 1, "cuda"):
        pass


TOKENIZERS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"model": {"vocab": {"b": 1, "a": 0}}, "added_tokens": [{"content": "<x>", "id": 2}]},
        ["a", "b", "<x>", "<unused3>"],
    ),
    ({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}, ["a", "b", "<unused2>", "<unused3>"]),
]


@pytest.mark.parametrize(("tokenizer", "expected"), TOKENIZERS)
def test_tokens_in_the_order_of_their_numbers(tokenizer: dict[str, Any], expected: list[str]) -> None:
    assert _tokens(tokenizer, 4) == expected
