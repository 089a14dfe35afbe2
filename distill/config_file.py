"""Reading a model's config.json, which may be a stranger's: plain values only, and nothing runs because of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForSequenceClassification

from distill import files
from distill.errors import CheckpointError

CODE_KEYS = ("auto_map", "trust_remote_code", "_attn_implementation_internal")
KERNEL_KEYS = ("attn_implementation", "_attn_implementation")


def config_problems(path: Path) -> list[str]:
    """Why this config (or a tokenizer's) cannot be used; nothing is run to find out."""
    try:
        value = files.read_json(path)
    except (OSError, ValueError) as error:
        return [f"{path.name}: {error}"]
    if not isinstance(value, dict):
        return [f"{path.name}: not a JSON object"]
    return [f"{path.name}: {key} asks for code from elsewhere, which is never run" for key in _asking(value)]


def _asking(value: object) -> Iterator[str]:
    """The keys, however deep, with which transformers would run or fetch code."""
    if isinstance(value, list):
        for item in value:
            yield from _asking(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if (key in CODE_KEYS and item) or (key in KERNEL_KEYS and "/" in str(item)):
                yield key
            else:
                yield from _asking(item)


def read_config(path: Path) -> Any:
    """The transformers config in the file `path`.

    Raises:
        CheckpointError: it cannot be read, asks for code, or no architecture is known for it.
    """
    problems = config_problems(path)
    if problems:
        raise CheckpointError(f"{path} cannot be used as a model's config", problems)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # transformers and its validators have no common error
        raise CheckpointError(f"{path}: no config that transformers can read", [first_line(error)]) from error


def config_from(values: Mapping[str, Any]) -> Any:
    """The transformers config with these keys, `model_type` among them.

    Raises:
        CheckpointError: it asks for code, or no architecture is known for it.
    """
    asking = [f"{key} asks for code from elsewhere, which is never run" for key in _asking(values)]
    kind = values.get("model_type")
    unknown = (
        [] if kind in CONFIG_MAPPING else [f"model_type: expected an architecture of transformers, found {kind!r}"]
    )
    if asking or unknown:
        raise CheckpointError("these keys cannot be used as a model's config", [*asking, *unknown])
    try:
        return AutoConfig.for_model(**values)
    except Exception as error:  # transformers and its validators have no common error
        raise CheckpointError("no config that transformers can read", [first_line(error)]) from error


def build(config: Any, where: Path) -> nn.Module:
    """A classifier with random weights.

    Raises:
        CheckpointError: the config's sizes make no model, or its architecture cannot classify texts.
    """
    try:
        return cast(nn.Module, AutoModelForSequenceClassification.from_config(config, trust_remote_code=False))
    except Exception as error:  # each architecture complains in its own way
        raise CheckpointError(f"{where}: no classifier can be built from the config", [first_line(error)]) from error


def first_line(error: Exception) -> str:
    """An error's text, which may be a page."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
