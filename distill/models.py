"""Building students: fewer layers and narrower widths copied from a teacher, a smaller checkpoint, or a config."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.channels import CHANNELS_KEY
from distill.checkpoint import label_config, load_model
from distill.config_file import build, read_config
from distill.errors import RecipeError
from distill.layer_sizes import SIZES_KEY, choose_sizes
from distill.layers import model_config, stack
from distill.low_rank import resize, whole
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


def chosen_layers(layers: int | Sequence[int] | None, total: int, key: str = "layers") -> list[int]:
    """The teacher's layers that the student gets; left out: half of them. `key` is the recipe's name for them.

    Raises:
        RecipeError: a layer that is not there.
    """
    if isinstance(layers, Sequence):
        wrong = [str(i) for i in layers if not 0 <= i < total]
        if wrong or not layers:
            raise RecipeError(f"student.{key}: expected numbers from 0 to {total - 1}, found {list(layers)}")
        return list(layers)
    kept = max(1, total // 2) if layers is None else layers
    if kept > total:
        raise RecipeError(f"student.{key}: {kept} layers cannot be copied from a teacher of {total}")
    return evenly_spaced(total, kept)


def build_student(recipe: StudentRecipe, teacher: nn.Module, task: Task, start: Path | None, seed: int) -> nn.Module:
    """The student before its first step. `start` is the folder of `recipe.model` or the file of `recipe.config`.

    Raises:
        RecipeError: the shape cannot be made from this teacher.
        CheckpointError: `start` cannot be used.
    """
    torch.manual_seed(seed)
    if recipe.model is not None and start is not None:
        return load_model(start, task, seed)
    if recipe.config is not None and start is not None:
        return _from_config(start, task)
    return copied(teacher, recipe)


def _from_config(path: Path, task: Task) -> nn.Module:
    """A student with random weights."""
    config = read_config(path)
    config.update(label_config(list(task.labels)))
    student = build(config, path)
    resize(student)
    return student


def copied(teacher: nn.Module, recipe: StudentRecipe) -> nn.Module:
    """A student made of the teacher's layers; where it is narrower, the leading part of each weight is copied.

    Raises:
        RecipeError: layers or widths that the teacher does not have.
    """
    teacher = whole(teacher)
    name, modules = stack(teacher)
    kept = chosen_layers(recipe.layers, len(modules))
    config = copy.deepcopy(model_config(teacher))
    config.num_hidden_layers = len(kept)
    _narrow(config, recipe)
    choose_sizes(config, kept)
    student = build(config, Path(config.name_or_path))
    resize(student)
    source = {f"{name}.{new}.": f"{name}.{old}." for new, old in enumerate(kept)}
    weights = teacher.state_dict()
    student.load_state_dict(
        {key: _leading(weights[_renamed(key, source)], value) for key, value in student.state_dict().items()}
    )
    return student


def _narrow(config: Any, recipe: StudentRecipe) -> None:
    """Put the narrower widths into a config; the size of a head stays.

    Raises:
        RecipeError: wider than the teacher, not a whole number of heads, or the teacher was pruned.
    """
    widths = (recipe.hidden_size, recipe.intermediate_size)
    if widths == (None, None):
        return
    problems = [*_head_problems(config, recipe), *_width_problems(config, recipe)]
    if problems:
        raise RecipeError("the student's widths do not fit the teacher", problems)
    setattr(config, _neurons_key(config), recipe.intermediate_size or getattr(config, _neurons_key(config)))
    if recipe.hidden_size is not None:
        config.num_attention_heads = recipe.hidden_size * config.num_attention_heads // config.hidden_size
        if getattr(config, "embedding_size", None) == config.hidden_size:  # ELECTRA: no projection between them
            config.embedding_size = recipe.hidden_size
        config.hidden_size = recipe.hidden_size


def _neurons_key(config: Any) -> str:
    """What the config calls the feed-forward width."""
    return "intermediate_size" if hasattr(config, "intermediate_size") else "hidden_dim"


def _head_problems(config: Any, recipe: StudentRecipe) -> list[str]:
    """Why heads cannot be divided as asked."""
    head_size = config.hidden_size // config.num_attention_heads
    problems = []
    if hasattr(config, SIZES_KEY) or hasattr(config, CHANNELS_KEY):
        problems.append("the teacher was pruned: its layers have sizes of their own, and it cannot be narrowed")
    if recipe.hidden_size is not None and recipe.hidden_size % head_size:
        problems.append(f"student.hidden_size: expected a multiple of the head size {head_size}")
    return problems


def _width_problems(config: Any, recipe: StudentRecipe) -> list[str]:
    """Widths that are larger than the teacher's."""
    asked = (
        ("hidden_size", recipe.hidden_size, config.hidden_size),
        ("intermediate_size", recipe.intermediate_size, getattr(config, _neurons_key(config))),
    )
    return [
        f"student.{key}: {value} is more than the teacher's {most}" for key, value, most in asked if (value or 0) > most
    ]


def _renamed(key: str, source: dict[str, str]) -> str:
    """The teacher's name for a student's weight."""
    for new, old in source.items():
        if key.startswith(new):
            return old + key.removeprefix(new)
    return key


def _leading(weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The leading part of `weight` in the shape of `like`."""
    return weight[tuple(slice(size) for size in like.shape)]
