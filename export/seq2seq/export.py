"""From a torch encoder-decoder to an fp32 bundle that was compared with it."""

from __future__ import annotations

from pathlib import Path

import onnx
from torch import nn

from distill.checkpoint import load_tokenizer
from distill.data import Split
from distill.files import new_folder
from distill.seq2seq import load_seq2seq, set_languages
from distill.task import Task
from export.bundle import CARD, Bundle, read_bundle
from export.folder import seal_fp32, write_parts
from export.parity import require
from export.runtime import Translator, load_as
from export.seq2seq.build import build
from export.seq2seq.checks import check, decoding_of
from export.seq2seq.parity import compare_logits, compare_translations
from export.seq2seq.weights import read_model


def export_translator(
    checkpoint: Path, target: Path, task: Task, *, opset: int, atol: float, examples: Split
) -> Bundle:
    """Write the checkpoint as the fp32 bundle `target`, and prove on the sources of `examples` that it answers alike.

    Raises:
        CheckpointError: naming every reason why this checkpoint cannot be exported.
        RecipeError: the model's tokenizer does not know the task's languages.
        RunError: the graph's logits are further than `atol` from the checkpoint's, or `target` exists.
    """
    model, tokenizer = load_seq2seq(checkpoint), load_tokenizer(checkpoint)
    set_languages(model, tokenizer, task)
    check(model, tokenizer, task, opset)
    details = {"decoding": decoding_of(model, task).to_json()}
    graph = to_onnx(model, task, opset)
    with new_folder(target) as folder:
        write_parts(folder, checkpoint, graph, tokenizer)
        seal_fp32(folder, task, graph, details)
        translator = load_as(Translator, folder)
        result = compare_logits(model, translator, examples.texts)
        require(result, atol, "logits")
        same = compare_translations(model, translator, examples.texts)
        (folder / CARD).unlink()
        parity = {**result.to_json(), **same, "atol": atol, "against": "torch fp32"}
        seal_fp32(folder, task, graph, {**details, "parity": parity})
    return read_bundle(target, verify=False)


def to_onnx(model: nn.Module, task: Task, opset: int) -> onnx.ModelProto:
    """The graph of a model, with positions up to the task's longest text."""
    graph = build(*read_model(model, max(task.max_length, task.max_target_length or 0)), opset)
    onnx.checker.check_model(graph)
    return graph
