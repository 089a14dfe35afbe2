"""What the learning steps do for classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from distill import files, signals
from distill.batches import ASKED_AT_ONCE, Batch, RowLoss, chunks, collate, drawn, encode
from distill.checkpoint import load_model, load_tokenizer, save
from distill.config_file import read_config
from distill.errors import DataError
from distill.label import label
from distill.losses import distillation_rows
from distill.models import build_student
from distill.opened import Manifest, Run
from distill.recipe import DistillationRecipe, Recipe
from distill.smaller_vocabulary import learned_texts, prune_vocabulary
from distill.student import distil
from distill.task import Task
from distill.teach import teach


def teacher_settings(recipe: Recipe) -> Mapping[str, Any]:
    """What a teacher depends on besides its own section."""
    return {}


def make_teacher(opened: Run, folder: Path) -> Manifest:
    """Fine-tune the teacher into `folder`."""
    recipe, dataset = opened.recipe, opened.dataset
    source = opened.source(recipe.teacher.model)
    assert source is not None
    training = recipe.teacher.training
    if training is None:
        _expect_labels(source, dataset.task)
    model, tokenizer = load_model(source, dataset.task, recipe.seed), load_tokenizer(source)
    work = opened.work("teach")
    result = teach(model, tokenizer, dataset, training, work, recipe.seed, opened.report) if training else {}
    save(model, tokenizer, dataset.task, folder)
    return result


def _expect_labels(source: Path, task: Task) -> None:
    """Refuse a teacher that is used as it is and answers other labels; their order does not matter.

    Raises:
        DataError: naming the labels that one side has and the other has not.
    """
    config = read_config(source / "config.json")
    own = [str(config.id2label[i]) for i in range(config.num_labels)]
    missing, extra = set(task.labels) - set(own), set(own) - set(task.labels)
    problems = [f"{label!r} is in the data, the teacher never answers it" for label in sorted(missing)]
    problems += [f"{label!r} is a teacher's answer that the data does not have" for label in sorted(extra)]
    if problems:
        raise DataError(
            f"the teacher {source} answers other labels than the task's; rename the data's with task.label_names, "
            "or fine-tune it (teacher.training)",
            problems,
        )


def signal_settings(recipe: Recipe) -> Mapping[str, Any]:
    """What logits depend on besides the teacher: nothing."""
    return {}


def make_signals(opened: Run, folder: Path) -> Manifest:
    """Write the teacher's logits into `folder`."""
    teacher = opened.folder / "teacher"
    model, tokenizer = load_model(teacher), load_tokenizer(teacher)
    weights = files.sha256(teacher / "model.safetensors")
    found = label(model, tokenizer, opened.dataset, weights, report=opened.report)
    signals.write(found, folder)
    return {"examples": len(found.ids)}


def before_student(recipe: Recipe) -> Mapping[str, str]:
    """The folders that a student is made from, and the steps that make them."""
    return {"teacher": "teach", "signals": "label"}


def student_settings(recipe: Recipe) -> Mapping[str, Any]:
    """What a student depends on besides its own section."""
    return {}


def make_student(opened: Run, folder: Path) -> Manifest:
    """Build the student and distil into `folder`."""
    recipe, dataset = opened.recipe, opened.dataset
    teacher = opened.folder / "teacher"
    start = opened.source(recipe.student.model, recipe.student.config)
    model = build_student(recipe.student, load_model(teacher), dataset.task, start, recipe.seed)
    tokenizer = load_tokenizer(start if recipe.student.model is not None and start else teacher)
    shrunk: dict[str, Any] = {}
    if recipe.student.vocabulary == "used":
        pruned = prune_vocabulary(model, tokenizer, list(learned_texts(dataset)))
        model, tokenizer, shrunk = pruned.model, pruned.tokenizer, {"vocabulary": pruned.to_json()}
    found = signals.read(opened.folder / "signals")
    work = opened.work("student")
    result = distil(model, tokenizer, dataset, found, recipe.student, work, recipe.seed, report=opened.report)
    save(model, tokenizer, dataset.task, folder)
    return {**result, **shrunk}


def load(folder: Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A classifier and its tokenizer."""
    return load_model(folder), load_tokenizer(folder)


def asked_batches(
    opened: Run, model: nn.Module, tokenizer: PreTrainedTokenizerBase, recipe: DistillationRecipe, count: int
) -> list[Batch]:
    """At most `count` training rows, drawn by the seed, with the teacher's logits."""
    split, task = opened.dataset.splits["train"], opened.dataset.task
    found = signals.read(opened.folder / "signals").of(split.ids, task.labels)
    rows = drawn(encode(tokenizer, split, task, found), count, opened.recipe.seed)
    return [collate(tokenizer, part) for part in chunks(rows, ASKED_AT_ONCE)]


def row_loss(recipe: DistillationRecipe) -> RowLoss:
    """The distillation loss of each row of a batch."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in batch}
        logits = model(**inputs).logits
        return distillation_rows(logits, batch["teacher_logits"], batch["labels"], recipe.temperature, recipe.alpha)

    return loss


def recover(
    opened: Run,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    recipe: DistillationRecipe,
    stage: str,
    watchers: Sequence[TrainerCallback] = (),
) -> Manifest:
    """Distil again after, or while, a model is made smaller, in place."""
    found, work = signals.read(opened.folder / "signals"), opened.work(stage)
    return distil(
        model, tokenizer, opened.dataset, found, recipe, work, opened.recipe.seed, stage, opened.report, watchers
    )
