"""Scores, differences and parity, from answers made by hand and from tiny real models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import toy_rows

from bench.backends import open_candidate
from bench.candidates import Candidate, from_bundle, from_checkpoint
from bench.quality import origins
from bench.tasks.classification import Answers, answer, parity, quality_rows, texts_of
from distill.data import Dataset, Split
from distill.errors import CheckpointError, DataError, ProviderError
from distill.task import Task
from export.graph import export

TASK = Task("classification", ("negative", "positive"), max_length=32)
ROWS = toy_rows(40, seed=5)
TEST = Split(tuple(text for text, _ in ROWS), None, tuple(TASK.labels.index(label) for _, label in ROWS))
DATASET = Dataset(TASK, {"train": TEST, "validation": TEST, "test": TEST}, "0" * 64, {}, ())


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundles") / "fp32"
    export(tiny_checkpoint, target, opset=20, atol=1e-4, examples=TEST)
    return target


def by_hand(model: str, runtime: str, precision: str, labels: list[int], offset: float = 0.0) -> Answers:
    logits = np.eye(2, dtype=np.float32)[labels] + np.float32(offset)
    return Answers(Candidate(model, runtime, precision, Path(model)), logits)


def test_rows_by_hand() -> None:
    gold = list(TEST.labels)
    wrong = [1 - label for label in gold[:10]] + gold[10:]
    teacher, student = by_hand("teacher", "torch", "fp32", gold), by_hand("student", "torch", "fp32", wrong)
    first, second = quality_rows([teacher, student], DATASET, "test", seed=1)
    assert (first.value, first.n, first.baseline, first.difference) == (1, 40, None, None)
    assert (second.value, second.difference, second.flipped) == (0.75, -0.25, 10)
    assert second.baseline == "teacher torch fp32"
    assert -0.45 < second.difference_low < -0.25 < second.difference_high < -0.1
    assert second.signature.startswith("metric:accuracy|n:40|interval:wilson")
    assert "seed:1" in str(second.difference_signature)


def test_parity_compares_what_was_made_from_what() -> None:
    answers = [
        by_hand("teacher", "torch", "fp32", [0, 1, 1, 0]),
        by_hand("teacher", "onnxruntime", "fp32", [0, 1, 1, 0], 0.5),
        by_hand("student", "torch", "fp32", [0, 1, 0, 0]),
        by_hand("student", "onnxruntime", "fp32", [0, 1, 0, 0], 0.25),
        by_hand("bundle", "onnxruntime", "int8", [0, 1, 0, 1], 0.25),
    ]
    found = [(row.a, row.b, row.max_abs, row.agreement, row.n) for row in (parity(*pair) for pair in origins(answers))]
    assert found == [
        ("teacher torch", "teacher onnx fp32", 0.5, 1.0, 4),
        ("student torch", "student onnx fp32", 0.25, 1.0, 4),
        ("student onnx fp32", "bundle onnx int8", 1.0, 0.75, 4),
    ]


def test_a_checkpoint_and_its_bundle_answer_alike(tiny_checkpoint: Path, bundle: Path) -> None:
    candidates = [from_checkpoint("student", tiny_checkpoint), from_bundle("student", bundle)]
    answers = [answer(candidate, TASK, texts_of(TEST), threads=1) for candidate in candidates]
    (row,) = [parity(*pair) for pair in origins(answers)]
    assert row.max_abs < 1e-4
    assert row.agreement == 1
    rows = quality_rows(answers, DATASET, "test", seed=1)
    assert rows[0].value == rows[1].value
    assert rows[1].flipped == 0


def test_labels_are_matched_by_name(tiny_checkpoint: Path) -> None:
    turned = Task("classification", ("positive", "negative"), max_length=32)
    candidate = from_checkpoint("student", tiny_checkpoint)
    own, other = (answer(candidate, task, TEST.texts, threads=1) for task in (TASK, turned))
    assert np.array_equal(own.logits, other.logits[:, ::-1])
    with pytest.raises(DataError) as caught:
        answer(candidate, Task("classification", ("negative", "neutral")), TEST.texts, threads=1)
    assert caught.value.problems == ("only the data has 'neutral'", "only the model has 'positive'")


def test_pairs_are_texts_too() -> None:
    assert texts_of(Split(("a", "b"), ("c", "d"), (0, 1))) == [("a", "c"), ("b", "d")]


def test_torch_answers_in_the_order_it_was_asked(tiny_checkpoint: Path) -> None:
    texts = ["good", "the film is a story of one town and its people", "bad film"]
    with open_candidate(from_checkpoint("student", tiny_checkpoint), 1, "cpu") as backend:
        together = backend.logits(texts, 2)
        alone = np.concatenate([backend.logits([text], 1) for text in texts])
    assert np.abs(together - alone).max() < 1e-5


def test_threads_are_put_back(tiny_checkpoint: Path) -> None:
    import torch

    before = torch.get_num_threads()
    with open_candidate(from_checkpoint("student", tiny_checkpoint), before + 1, "cpu"):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("device", "message"), [("tensorrt", "does not run on 'tensorrt'"), ("cuda", "no CUDA device")]
)
def test_devices_that_are_not_there(tiny_checkpoint: Path, device: str, message: str) -> None:
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with (
        pytest.raises(ProviderError, match=message),
        open_candidate(from_checkpoint("student", tiny_checkpoint), 1, device),
    ):
        pass


def test_a_model_without_a_task_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    (tmp_path / "model" / "task.json").unlink()
    with (
        pytest.raises(CheckpointError, match=r"task\.json"),
        open_candidate(from_checkpoint("model", tmp_path / "model"), 1, "cpu"),
    ):
        pass


def test_other_precisions_of_torch_are_refused(tiny_checkpoint: Path) -> None:
    assert json.loads((tiny_checkpoint / "task.json").read_text())["labels"] == list(TASK.labels)
    with (
        pytest.raises(CheckpointError, match="fp32"),
        open_candidate(Candidate("a", "torch", "bf16", tiny_checkpoint), 1, "cpu"),
    ):
        pass
