"""From a torch checkpoint to an fp32 ONNX bundle whose answers were compared with the checkpoint's."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from distill import files
from distill.checkpoint import load_model, load_tokenizer, open_checkpoint
from distill.data import Split
from distill.errors import CheckpointError
from distill.files import new_folder
from distill.layers import attention, model_config
from distill.task import Task
from export import exportable
from export.bundle import CARD, Bundle, read_bundle
from export.encoder.build import build_classifier
from export.encoder.weights import read_classifier, what_is_missing
from export.folder import seal_fp32, write_parts
from export.graphs.writer import LEAST_OPSET
from export.manifest import CONFIG
from export.parity import Batch, ParityResult, awkward_batches, compare, real_batches, require
from export.rewrite import rewrite, strip
from export.runtime import Predictor, load_as
from export.seq2seq.export import export_translator

OUTPUT = "logits"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export(checkpoint_folder: Path, target: Path, *, opset: int, atol: float, examples: Split) -> Bundle:
    """Write the checkpoint as the fp32 bundle `target`, and prove on `examples` that both give the same logits.

    Raises:
        CheckpointError: naming every reason why this checkpoint cannot be exported.
        RunError: the graph's logits are further than `atol` from the checkpoint's, or `target` exists.
    """
    task = _task(checkpoint_folder)
    if task.kind == "translation":
        return export_translator(checkpoint_folder, target, task, opset=opset, atol=atol, examples=examples)
    model, tokenizer = load_model(checkpoint_folder), load_tokenizer(checkpoint_folder)
    exportable.check(model, tokenizer, task)
    graph, details = to_onnx(model, opset), {"graph": written_by(model, opset)}
    with new_folder(target) as folder:
        write_parts(folder, checkpoint_folder, graph, tokenizer)
        seal_fp32(folder, task, graph, details)
        result = verify(model, load_as(Predictor, folder), examples)
        require(result, atol, OUTPUT)
        (folder / CARD).unlink()
        parity = {**result.to_json(), "atol": atol, "against": "torch fp32"}
        seal_fp32(folder, task, graph, {**details, "parity": parity})
    return read_bundle(target, verify=False)


def _task(folder: Path) -> Task:
    """What the checkpoint answers, once its config is known to be of a kind that can be exported.

    Raises:
        CheckpointError: with all reasons.
    """
    checkpoint = open_checkpoint(folder)
    if checkpoint.task is not None and checkpoint.task.kind == "translation":
        return checkpoint.task
    exportable.check_config(files.read_json(folder / CONFIG), checkpoint.task, str(folder))
    if checkpoint.task is None:
        raise CheckpointError(f"{folder} has no task.json: nothing says what its outputs mean")
    return checkpoint.task


class Logits(nn.Module):
    """The model as the graph sees it: integers in, logits out.

    It hands on a ready additive mask `(batch, 1, 1, length)`; from a mask of ones and zeros the model would compute the
    same one in twenty nodes.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits `(batch, labels)` of ids, mask and segments `(batch, length)`."""
        lowest = torch.finfo(torch.float32).min
        mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * lowest
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return cast(torch.Tensor, self.model(input_ids=input_ids, attention_mask=mask, **segments).logits)


def to_onnx(model: nn.Module, opset: int) -> onnx.ModelProto:
    """The model as an ONNX graph with dynamic batch and length, weights inside, nothing of this machine in it."""
    graph = _traced(model, opset) if _why_traced(model, opset) else build_classifier(*read_classifier(model), opset)
    onnx.checker.check_model(graph)
    return graph


def written_by(model: nn.Module, opset: int) -> str:
    """How `to_onnx` makes the graph of this model."""
    reason = _why_traced(model, opset)
    return f"traced by torch ({reason}): slower in int8" if reason else "built from the weights"


def _why_traced(model: nn.Module, opset: int) -> str:
    """What keeps the graph from being built from the weights alone; empty if nothing does."""
    if opset < LEAST_OPSET:
        return f"opset {opset} is below {LEAST_OPSET}"
    return what_is_missing(model)


def _traced(model: nn.Module, opset: int) -> onnx.ModelProto:
    """The graph that torch's exporter finds by running the model.

    Eager attention is exported: torch's fused attention becomes more nodes (checks for rows that are all padding) and
    runs 3-5 % slower.
    """
    with attention(model, "eager"):
        found = program(Logits(model.float()).eval(), inputs_of(model), opset)
    rewrite(found, prefix="model.")
    graph = ir.serde.serialize_model(found)
    strip(graph)
    return graph


def program(module: nn.Module, names: Sequence[str], opset: int) -> ir.Model:
    """What torch's exporter makes of a module that gives logits of these inputs, not rewritten yet."""
    with _quiet():
        found = torch.onnx.export(
            module,
            sample(names),
            dynamo=True,
            opset_version=opset,
            input_names=list(names),
            output_names=[OUTPUT],
            dynamic_shapes=free_shapes(names),
            verbose=False,
        )
    assert found is not None
    return found.model


def sample(names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """Inputs to trace with: their sizes are neither 1 nor equal, so that each stays free."""
    return tuple(torch.ones(2, 7, dtype=torch.int64) for _ in names)


def free_shapes(names: Sequence[str]) -> tuple[dict[int, Any], ...]:
    """What says so to torch: batch and length of every input."""
    return tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in names)


def inputs_of(model: nn.Module) -> tuple[str, ...]:
    """The inputs that this model reads: segments only where it tells them apart."""
    return INPUTS if (getattr(model_config(model), "type_vocab_size", 0) or 0) > 1 else INPUTS[:2]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about other people's code (torchvision, deprecations) off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def verify(model: nn.Module, predictor: Predictor, examples: Split) -> ParityResult:
    """Compare a bundle with the torch model on real texts, then on awkward shapes."""
    texts = list(zip(examples.texts, examples.pairs, strict=True)) if examples.pairs else list(examples.texts)
    limits = predictor.limits
    awkward = awkward_batches(limits.rows, limits.types, predictor.task.max_length)
    batches = [*real_batches(predictor.encode, texts), *awkward]
    return compare(lambda batch: torch_logits(model, batch), predictor.forward, batches)


def torch_logits(model: nn.Module, batch: Batch) -> NDArray[np.float32]:
    """The torch model's logits `(batch, labels)`."""
    inputs = {name: torch.from_numpy(batch[name]) for name in inputs_of(model)}
    with torch.inference_mode():
        return cast(NDArray[np.float32], model(**inputs).logits.numpy())
