"""What keeps a checkpoint from becoming a bundle: every reason at once, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from distill.checkpoint import check_finite, head
from distill.encoders import ARCHITECTURES
from distill.errors import CheckpointError
from distill.layers import model_config
from distill.task import KINDS, Task
from export.texts import PADDED

EMBEDDED_LIMIT = 2**31 - 2**20  # bytes: protobuf's limit for one message, less room for the graph itself


def check_config(config: Mapping[str, Any], task: Task | None, where: str) -> None:
    """Look at config.json and the task alone.

    Raises:
        CheckpointError: with everything that is not supported.
    """
    problems = [problem for fits, problem in _config_checks(config, task) if not fits]
    if problems:
        raise CheckpointError(f"{where} cannot be exported", problems)


def _config_checks(config: Mapping[str, Any], task: Task | None) -> list[tuple[bool, str]]:
    """Each thing that has to hold, and what to say when it does not."""
    kind = config.get("model_type")
    position = config.get("position_embedding_type", "absolute")
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    longest = _positions(config)
    return [
        (kind in ARCHITECTURES, f"architecture {kind!r}: supported are {', '.join(sorted(ARCHITECTURES))}"),
        (not config.get("is_decoder"), "is_decoder: only encoders are supported"),
        (not config.get("quantization_config"), "quantization_config: expected plain weights, export them unquantized"),
        (position == "absolute", f"position_embedding_type {position!r}: only 'absolute' is supported"),
        (task is not None, "task.json: there is none, so nothing says what the outputs mean"),
        (task is None or task.kind in KINDS, f"task {task and task.kind!r}: supported are {', '.join(KINDS)}"),
        (
            task is None or count == task.num_labels,
            f"labels: the model has {count} outputs, the task {task and task.num_labels}",
        ),
        (
            task is None or longest is None or task.max_length <= longest,
            f"max_length: the task asks for {task and task.max_length} tokens, the model has {longest} positions",
        ),
    ]


def _positions(config: Mapping[str, Any]) -> int | None:
    """How many tokens have a position; RoBERTa and its kin start counting after the padding id."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    return positions - (config.get("pad_token_id") or 0) - 1 if config.get("model_type") in PADDED else positions


def check(model: nn.Module, tokenizer: PreTrainedTokenizerBase, task: Task) -> None:
    """Look at the weights and the tokenizer.

    Raises:
        CheckpointError: NaN or infinite weights, or naming everything that does not fit together.
    """
    check_finite(model)
    checks = [*_fits_tokenizer(model, tokenizer), _fits_file(model), _fits_task(model, task)]
    problems = [problem for fits, problem in checks if not fits]
    if problems:
        raise CheckpointError("the checkpoint cannot be exported", problems)


def _fits_tokenizer(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[tuple[bool, str]]:
    """Whether every id of the tokenizer has an embedding row."""
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    highest = max(tokenizer.get_vocab().values(), default=-1)
    pad = model_config(model).pad_token_id
    return [
        (highest < rows, f"tokenizer: it makes ids up to {highest}, the model has {rows} embedding rows"),
        (pad is None or 0 <= pad < rows, f"pad_token_id: {pad} is not among the model's {rows} embedding rows"),
    ]


def _fits_file(model: nn.Module) -> tuple[bool, str]:
    """Whether the weights fit into one .onnx file, which bundles need."""
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    return size <= EMBEDDED_LIMIT, f"size: {size / 1e9:.1f} GB of weights, one .onnx file holds 2 GB at most"


def _fits_task(model: nn.Module, task: Task) -> tuple[bool, str]:
    """Whether the head has one output a label."""
    outputs = head(model).out_features
    return outputs == task.num_labels, f"head: {outputs} outputs for {task.num_labels} labels"
