"""Building students: fewer layers and narrower widths copied from a teacher, a smaller checkpoint, or a config."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from distill.checkpoint import label_config, load_model
from distill.errors import RecipeError
from distill.layers import model_config, stack
from distill.recipe import StudentRecipe
from distill.task import Task


def evenly_spaced(total: int, kept: int) -> list[int]:
    """Which of `total` layers are kept: evenly spaced, the first and the last among them.

    >>> evenly_spaced(6, 3)
    [0, 2, 5]
    """
    if kept == 1:
        return [0]
    return [int(i * (total - 1) / (kept - 1)) for i in range(kept)]


def chosen_layers(layers: int | Sequence[int] | None, total: int) -> list[int]:
    """The teacher's layers that the student gets.

    Raises:
        RecipeError: a layer that is not there, or one named twice.
    """
    if isinstance(layers, Sequence):
        wrong = [str(i) for i in layers if not 0 <= i < total]
        if wrong or not layers or len(set(layers)) != len(layers):
            raise RecipeError(f"student.layers: expected different numbers from 0 to {total - 1}, found {list(layers)}")
        return list(layers)
    kept = max(1, total // 2) if layers is None else layers
    if kept > total:
        raise RecipeError(f"student.layers: {kept} layers cannot be copied from a teacher of {total}")
    return evenly_spaced(total, kept)


def build_student(recipe: StudentRecipe, teacher: nn.Module, task: Task, start: Path | None, seed: int) -> nn.Module:
    """The student before its first step. `start` is the folder of `recipe.model` or the file of `recipe.config`.

    Raises:
        RecipeError: the shape cannot be made from this teacher.
        CheckpointError: `start` cannot be used.
    """
    torch.manual_seed(seed)
    if recipe.model is not None and start is not None:
        return load_model(start, task)
    if recipe.config is not None and start is not None:
        return _from_config(start, task)
    return copied(teacher, recipe)


def _from_config(path: Path, task: Task) -> nn.Module:
    """A student with random weights."""
    config = AutoConfig.from_pretrained(path)
    config.update(label_config(list(task.labels)))
    return cast(nn.Module, AutoModelForSequenceClassification.from_config(config))


def copied(teacher: nn.Module, recipe: StudentRecipe) -> nn.Module:
    """A student made of the teacher's layers; where it is narrower, the leading part of each weight is copied.

    Raises:
        RecipeError: layers or widths that the teacher does not have.
    """
    name, modules = stack(teacher)
    kept = chosen_layers(recipe.layers, len(modules))
    config = copy.deepcopy(model_config(teacher))
    config.num_hidden_layers = len(kept)
    _narrow(config, recipe)
    student = cast(nn.Module, AutoModelForSequenceClassification.from_config(config))
    source = {f"{name}.{new}.": f"{name}.{old}." for new, old in enumerate(kept)}
    weights = teacher.state_dict()
    student.load_state_dict(
        {key: _leading(weights[_renamed(key, source)], value) for key, value in student.state_dict().items()}
    )
    return student


def _narrow(config: object, recipe: StudentRecipe) -> None:
    """Put the narrower widths into a config; the size of a head stays.

    Raises:
        RecipeError: wider than the teacher, or not a whole number of heads.
    """
    if recipe.intermediate_size is not None:
        key = "intermediate_size" if hasattr(config, "intermediate_size") else "hidden_dim"
        setattr(config, key, _at_most(config, key, recipe.intermediate_size))
    if recipe.hidden_size is None:
        return
    head_size = config.hidden_size // config.num_attention_heads  # type: ignore[attr-defined]
    if recipe.hidden_size % head_size:
        raise RecipeError(f"student.hidden_size: expected a multiple of the head size {head_size}")
    config.hidden_size = _at_most(config, "hidden_size", recipe.hidden_size)  # type: ignore[attr-defined]
    config.num_attention_heads = recipe.hidden_size // head_size  # type: ignore[attr-defined]


def _at_most(config: object, key: str, value: int) -> int:
    """`value`, unless the teacher is smaller."""
    largest = int(getattr(config, key))
    if value > largest:
        raise RecipeError(f"student.{key}: {value} is more than the teacher's {largest}")
    return value


def _renamed(key: str, source: dict[str, str]) -> str:
    """The teacher's name for a student's weight."""
    for new, old in source.items():
        if key.startswith(new):
            return old + key.removeprefix(new)
    return key


def _leading(weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The leading part of `weight` in the shape of `like`."""
    return weight[tuple(slice(size) for size in like.shape)]
