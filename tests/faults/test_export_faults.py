"""Rows 7, 15, 27, 58, 60 of the fault list: what must not become a bundle, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import toy_rows
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

from distill.checkpoint import load_model, load_tokenizer
from distill.data import Split
from distill.errors import CheckpointError, RunError
from distill.task import Task
from export import exportable, graph

TEXTS = tuple(text for text, _ in toy_rows(20))
EXAMPLES = Split(TEXTS, None, (0,) * len(TEXTS))
TASK = Task("classification", ("negative", "positive"), max_length=32)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def refused(checkpoint: Path, error: type[Exception]) -> str:
    """Export, expect `error`, see that nothing was written, and return what it says."""
    before = sorted(checkpoint.parent.iterdir())
    with pytest.raises(error) as caught:
        graph.export(checkpoint, checkpoint.parent / "bundle", opset=20, atol=1e-4, examples=EXAMPLES)
    assert sorted(checkpoint.parent.iterdir()) == before
    return str(caught.value)


def edit_config(checkpoint: Path, **changes: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}), encoding="utf-8")


def edit_weight(checkpoint: Path, name: str, value: float) -> None:
    path = checkpoint / "model.safetensors"
    weights = load_file(path)
    weights[name].view(-1)[3] = value
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, checkpoint: Path) -> None:
    edit_weight(checkpoint, "bert.encoder.layer.1.output.dense.weight", value)
    assert "bert.encoder.layer.1.output.dense.weight" in refused(checkpoint, CheckpointError)


def test_a_tokenizer_with_more_ids_than_rows(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    value = json.loads(path.read_text())
    rows = load_model(checkpoint).get_input_embeddings().weight.shape[0]
    value["model"]["vocab"]["astray"] = rows + 4
    path.write_text(json.dumps(value), encoding="utf-8")
    text = refused(checkpoint, CheckpointError)
    assert f"ids up to {rows + 4}, the model has {rows} embedding rows" in text


def test_padding_beyond_the_rows(checkpoint: Path) -> None:
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    model.config.pad_token_id = 10**6
    with pytest.raises(CheckpointError, match="pad_token_id: 1000000"):
        exportable.check(model, tokenizer, TASK)


@pytest.mark.parametrize(
    ("name", "stored"),
    [("classifier.bias", "head.out.bias"), ("bert.encoder.layer.0.intermediate.dense.weight", "encoder.0.up.weight")],
)
def test_a_graph_that_answers_otherwise(
    name: str, stored: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = graph.to_onnx

    def make_wrong(model: nn.Module, opset: int) -> onnx.ModelProto:
        with torch.no_grad():  # fresh biases are all zero
            model.get_parameter(name).normal_(0, 0.5)
        made = make(model, opset)
        weight = next(value for value in made.graph.initializer if value.name == stored)
        array = numpy_helper.to_array(weight).copy()
        array.flat[: array.size // 2] += np.float32(1)
        weight.CopyFrom(numpy_helper.from_array(array, stored))
        return made

    monkeypatch.setattr(graph, "to_onnx", make_wrong)
    text = refused(checkpoint, RunError)
    assert "output 'logits' differs by" in text
    assert "allowed is 0.0001" in text
    assert "row" in text
    assert "label" in text


def test_an_unsupported_architecture_hears_all_reasons(checkpoint: Path) -> None:
    edit_config(
        checkpoint,
        model_type="gpt2",
        is_decoder=True,
        position_embedding_type="relative_key",
        quantization_config={"bits": 4},
        max_position_embeddings=16,
        id2label={"0": "a", "1": "b", "2": "c"},
    )
    text = refused(checkpoint, CheckpointError)
    assert "architecture 'gpt2': supported are bert, camembert, distilbert, electra, roberta, xlm-roberta" in text
    assert "is_decoder" in text
    assert "position_embedding_type 'relative_key'" in text
    assert "quantization_config" in text
    assert "asks for 32 tokens, the model has 16 positions" in text
    assert "3 outputs, the task 2" in text


def test_a_foreign_model_has_no_task(checkpoint: Path) -> None:
    (checkpoint / "task.json").unlink()
    assert "task.json" in refused(checkpoint, CheckpointError)


def test_roberta_starts_counting_positions_after_padding() -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    exportable.check_config(config, Task("classification", ("a", "b"), max_length=512), "model")
    with pytest.raises(CheckpointError, match="513 tokens, the model has 512 positions"):
        exportable.check_config(config, Task("classification", ("a", "b"), max_length=513), "model")


def test_more_weights_than_one_file_holds(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exportable, "EMBEDDED_LIMIT", 10_000)
    assert "GB of weights, one .onnx file holds 2 GB at most" in refused(checkpoint, CheckpointError)


def test_a_head_for_other_labels(checkpoint: Path) -> None:
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    with pytest.raises(CheckpointError, match="head: 2 outputs for 3 labels"):
        exportable.check(model, tokenizer, Task("classification", ("a", "b", "c"), max_length=32))


def test_a_taken_name_is_left_alone(checkpoint: Path) -> None:
    target = checkpoint.parent / "bundle"
    target.mkdir()
    (target / "mine.txt").write_text("mine", encoding="utf-8")
    assert "exists already" in refused(checkpoint, RunError)
    assert (target / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_an_export_that_is_cut_off_leaves_no_bundle(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(graph, "verify", stop)
    before = sorted(checkpoint.parent.iterdir())
    with pytest.raises(KeyboardInterrupt):
        graph.export(checkpoint, checkpoint.parent / "bundle", opset=20, atol=1e-4, examples=EXAMPLES)
    assert sorted(checkpoint.parent.iterdir()) == before
