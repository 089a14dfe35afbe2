from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from conftest import toy_rows, toy_tokenizer
from torch import nn

from distill.checkpoint import load_model, save
from distill.data import Split
from distill.layer_sizes import record_sizes
from distill.layers import layers
from distill.task import Task
from export.bundle import Bundle, read_bundle
from export.graph import export, inputs_of, to_onnx, torch_logits
from export.parity import awkward_batches
from export.runtime import load

TASK = Task("classification", ("negative", "positive"), max_length=32)
ROWS = toy_rows(40)
EXAMPLES = Split(tuple(text for text, _ in ROWS), None, tuple(int(label == "positive") for _, label in ROWS))
WIDTHS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 66, "pad_token_id": 0,
}  # fmt: skip
ARCHITECTURES = {
    "bert": ("Bert", WIDTHS),
    "roberta": ("Roberta", {**WIDTHS, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {**WIDTHS, "type_vocab_size": 1}),
    "camembert": ("Camembert", {**WIDTHS, "type_vocab_size": 1}),
    "electra": ("Electra", {**WIDTHS, "embedding_size": 16}),
    "distilbert": (
        "DistilBert",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0},
    ),
}


def write_checkpoint(folder: Path, name: str, pruned: bool = False) -> Path:
    prefix, sizes = ARCHITECTURES[name]
    tokenizer = toy_tokenizer()
    torch.manual_seed(1)
    config = getattr(transformers, f"{prefix}Config")(vocab_size=len(tokenizer), num_labels=2, **sizes)
    model = getattr(transformers, f"{prefix}ForSequenceClassification")(config).eval()
    spread_weights(model)
    if pruned:
        first, second = layers(model)
        first.keep({"heads": [0, 2, 3], "neurons": range(40)})
        second.keep({"heads": [1], "neurons": range(7)})
        record_sizes(model)
    save(model, tokenizer, TASK, folder)
    return folder


def spread_weights(model: nn.Module) -> None:
    """Fresh weights are tiny and fresh biases all zero: every logit is alike. With these a wrong graph shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" not in name and "LayerNorm" not in name:
                parameter.normal_(0, 0.2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), "bert")


@pytest.fixture(scope="module")
def bundle_folder(checkpoint: Path) -> Path:
    target = checkpoint.with_name("bundle")
    export(checkpoint, target, opset=20, atol=1e-5, examples=EXAMPLES)
    return target


@pytest.mark.parametrize(
    ("name", "pruned"),
    [
        ("bert", True),
        ("roberta", True),
        ("xlm-roberta", False),
        ("camembert", False),
        ("electra", False),
        ("distilbert", True),
    ],
)
@pytest.mark.parametrize(("opset", "written"), [(20, "built from the weights"), (19, "traced by torch (opset 19 is")])
def test_every_architecture_answers_like_torch(
    name: str, pruned: bool, opset: int, written: str, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", name, pruned)
    bundle = export(checkpoint, tmp_path / "bundle", opset=opset, atol=1e-5, examples=EXAMPLES)
    assert bundle.details["graph"].startswith(written)
    parity = bundle.details["parity"]
    assert parity["max_abs"] <= 1e-5
    assert parity["agreement"] == 1.0
    assert parity["n"] == len(EXAMPLES) + 14
    assert bundle.inputs == inputs_of(load_model(checkpoint))
    assert load(bundle.folder).logits(EXAMPLES.texts).std(axis=0).min() > 1e-3  # texts are told apart
    assert _positions_normed(bundle, EXAMPLES.texts[:2]) == 1


def _positions_normed(bundle: Bundle, texts: Sequence[str]) -> int:
    """How many positions the graph's last layer norm reads."""
    model = onnx.load(bundle.model_path)
    last = [node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"][-1]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = np.asarray(session.run([last], load(bundle.folder).encode(texts))[0])
    return found.size // len(texts) // found.shape[-1]


@pytest.mark.parametrize("opset", [17, 23])
def test_opsets(opset: int, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = export(tiny_checkpoint, tmp_path / "bundle", opset=opset, atol=1e-5, examples=EXAMPLES)
    assert bundle.opset == opset
    assert onnx.load(bundle.model_path).opset_import[0].version == opset


def test_the_bundle_is_whole_and_says_what_it_is(bundle_folder: Path) -> None:
    bundle = read_bundle(bundle_folder)
    assert bundle.precision == "fp32"
    assert bundle.task == TASK
    assert set(bundle.files) == {"onnx/model.onnx", "tokenizer.json", "config.json", "README.md"}
    assert "parity" in (bundle_folder / "README.md").read_text(encoding="utf-8")


def test_nothing_of_the_builder_is_in_the_bundle(bundle_folder: Path, checkpoint: Path) -> None:
    home, user = str(Path.home()), getpass.getuser()
    wanted = [b"/home", b"/tmp", b"site-packages", b"/usr/", b".py", str(checkpoint).encode()]
    wanted += [home.encode()] if home != "/" else []
    for path in bundle_folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert [text for text in wanted if text in content] == [], path.name
        assert f"/{user}/".encode() not in content


def test_the_graph_carries_no_comments(bundle_folder: Path) -> None:
    graph = onnx.load(bundle_folder / "onnx" / "model.onnx")
    assert not graph.graph.value_info
    assert not graph.functions
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)
    assert {entry.domain for entry in graph.opset_import} <= {""}


def test_weights_have_readable_names(bundle_folder: Path) -> None:
    names = {value.name for value in onnx.load(bundle_folder / "onnx" / "model.onnx").graph.initializer}
    assert {"encoder.1.up.weight", "encoder.1.attention.query.weight", "embedding.table", "head.out.bias"} <= names


def test_the_same_weights_give_the_same_bytes_even_from_training_mode(checkpoint: Path, bundle_folder: Path) -> None:
    model = load_model(checkpoint).train()
    before = model.config._attn_implementation
    graph = to_onnx(model, 20).SerializeToString(deterministic=True)
    assert graph == (bundle_folder / "onnx" / "model.onnx").read_bytes()
    assert model.config._attn_implementation == before


def test_padding_does_not_change_the_answer(bundle_folder: Path) -> None:
    predictor = load(bundle_folder)
    batch = predictor.encode(EXAMPLES.texts[:1])
    padded = {name: np.pad(ids, ((0, 0), (0, 9))) for name, ids in batch.items()}
    np.testing.assert_allclose(predictor.forward(batch), predictor.forward(padded), atol=1e-6)


def test_pairs_are_compared_as_pairs(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", "bert")
    task = Task("classification", TASK.labels, pair="second", max_length=32)
    (folder / "task.json").write_text(json.dumps(task.to_json()), encoding="utf-8")
    examples = Split(EXAMPLES.texts, tuple(reversed(EXAMPLES.texts)), EXAMPLES.labels)
    assert export(folder, tmp_path / "bundle", opset=20, atol=1e-5, examples=examples).details["parity"]["n"] == 54


def test_torch_logits_are_what_the_model_says(tiny_checkpoint: Path) -> None:
    model = load_model(tiny_checkpoint)
    for batch in awkward_batches(20, 2, 16):
        assert torch_logits(model, batch).shape == (len(batch["input_ids"]), 2)
