"""A teacher that labels in onnxruntime: the searches of `generate`, several times as fast on a processor."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from distill.task import Task
from distill.translate import Engine, Hypothesis, Search
from export.folder import seal_fp32, write_parts
from export.graphs.writer import LEAST_OPSET
from export.runtime import Translator, load_as
from export.seq2seq.checks import check, decoding_of
from export.seq2seq.export import to_onnx
from export.tasks.translation import Translation


def open_teacher(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, checkpoint: Path, task: Task, work: Path
) -> Engine:
    """The fp32 graph of `model`, which was loaded from `checkpoint`, as what translates; nothing stays in `work`.

    Raises:
        CheckpointError: naming every reason why this checkpoint cannot be exported.
        MissingExtraError: onnxruntime is not installed.
    """
    check(model, tokenizer, task, LEAST_OPSET)
    graph = to_onnx(model, task, LEAST_OPSET)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder = Path(scratch)
        write_parts(folder, checkpoint, graph, tokenizer)
        seal_fp32(folder, task, graph, {"decoding": decoding_of(model, task).to_json()})
        translator = load_as(Translator, folder, threads=torch.get_num_threads())
    return lambda texts, search: _answers(translator, texts, search)


def _answers(translator: Translator, texts: Sequence[str], search: Search) -> list[tuple[Hypothesis, ...]]:
    """For each text its translations, the likeliest first."""
    found = translator(
        texts,
        beams=search.beams,
        n_best=search.n_best,
        length_penalty=search.length_penalty,
        batch_tokens=search.max_batch_tokens,
    )
    return [tuple(map(_hypothesis, (best, *best.others))) for best in found]


def _hypothesis(found: Translation) -> Hypothesis:
    """A translation as the learning side knows it."""
    return Hypothesis(found.text, not found.stopped)
