"""Make the golden bundles: `python tests/data/make_golden.py`, in an environment with torch.

They are checked in and stay as they are, one pair per bundle format: every later release must load them and
answer the same. Run this only for a new format. The weights are random, so the answers mean nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from distill.task import Task  # noqa: E402
from export.bundle import seal  # noqa: E402
from export.runtime import load  # noqa: E402

OPSET = 20
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TASK = Task("classification", ("negative", "neutral", "positive"), max_length=32)
TEXTS = (
    "",
    " \t\n ",
    "a gorgeous film",
    "A GORGEOUS FILM!",
    "dull, slow and far too long",
    "the plot is thin but the actors are wonderful and the music is even better than that",
    "caf\u00e9 na\u00efve \u4f60\u597d \U0001f600",
    "word " * 60,
)
CORPUS = (
    "a gorgeous film with wonderful actors and even better music",
    "dull slow and far too long the plot is thin",
    "the best comedy of the year and the worst ending",
    "i laughed i cried i want my money back",
)


def make_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of a few hundred entries."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, "abcdefghijklmnopqrstuvwxyz 0123456789 .,!?'"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )
    return tokenizer


def make_model(rows: int) -> BertForSequenceClassification:
    """Two layers of width 16, with weights large enough for the answers to differ."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=rows,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=TASK.max_length,
        num_labels=TASK.num_labels,
        initializer_range=0.5,
        pad_token_id=0,
    )
    return BertForSequenceClassification(config).eval()


class Positional(torch.nn.Module):
    """The model with its inputs in order and its logits alone."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits


def export(model: torch.nn.Module) -> onnx.ModelProto:
    """The graph, without the builder's paths that the exporter writes into it."""
    # Three tensors: one passed twice would become a single input of the graph.
    example = [torch.full((2, 7), value, dtype=torch.int64) for value in (5, 1, 0)]
    axes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("length")}
    program = torch.onnx.export(
        Positional(model).eval(),  # the exporter would put the model inside back in training mode
        tuple(example),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_shapes=(axes, axes, axes),
        verbose=False,
    )
    proto = program.model_proto
    for node in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.metadata_props[:], proto.metadata_props[:], proto.graph.value_info[:]
    return proto


def make_bundle(target: Path, model_file: str, precision: str, tokenizer: Tokenizer, config: dict[str, object]) -> None:
    """Seal the folder that already holds the model."""
    (target / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    seal(
        target,
        task=TASK,
        precision=precision,
        model_file=model_file,
        opset=OPSET,
        inputs=INPUTS,
        outputs=["logits"],
        cpu={},
        details={"name": "golden", "reduce_range": True} if precision != "fp32" else {"name": "golden"},
    )


def main() -> None:
    """Write both bundles and what they answer."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer.get_vocab_size())
    folders = {"fp32": HERE / "golden-bundle", "int8-dynamic": HERE / "golden-bundle-int8"}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "onnx").mkdir(parents=True)
    graph = folders["fp32"] / "onnx/model.onnx"
    onnx.save(export(model), graph)
    small = folders["int8-dynamic"] / "onnx/model_int8.onnx"
    # reduce_range: seven-bit weights give the same integers on CPUs with and without VNNI.
    products = ["MatMul", "Gather"]
    quantize_dynamic(graph, small, op_types_to_quantize=products, weight_type=QuantType.QInt8, reduce_range=True)
    config = {"model_type": "bert", "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0}
    config |= {"max_position_embeddings": TASK.max_length, "type_vocab_size": 2}
    make_bundle(folders["fp32"], "onnx/model.onnx", "fp32", tokenizer, config)
    make_bundle(folders["int8-dynamic"], "onnx/model_int8.onnx", "int8-dynamic", tokenizer, config)

    predictors = {name: load(folder, threads=1) for name, folder in folders.items()}
    answers = {name: each.probabilities(TEXTS, batch_size=1).tolist() for name, each in predictors.items()}
    encoded = predictors["fp32"].encode(TEXTS)
    with torch.no_grad():
        tensors = {name: torch.from_numpy(value) for name, value in encoded.items()}
        torch_answers = model(**tensors).logits.softmax(-1).numpy()
    np.testing.assert_allclose(answers["fp32"], torch_answers, atol=1e-5)
    expected = {"texts": list(TEXTS), "ids": encoded["input_ids"].tolist(), **answers}
    (HERE / "golden-expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
