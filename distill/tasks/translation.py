"""What the learning steps do for translation."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, TrainerCallback

from distill import files, processes, translations
from distill.batches import ASKED_AT_ONCE, Batch, RowLoss, chunks, drawn
from distill.checkpoint import load_tokenizer, save
from distill.dataset import Dataset
from distill.errors import CheckpointError, MissingExtraError
from distill.label_pairs import Teacher, label_pairs
from distill.opened import Manifest, Run
from distill.recipe import DistillationRecipe, Recipe, VocabularyRecipe
from distill.sections import settings
from distill.seq2seq import IGNORED, build_seq2seq, load_seq2seq, set_languages
from distill.seq2seq_student import build_seq2seq_student
from distill.smaller_vocabulary import Pruned, learned_texts, prune_vocabulary
from distill.task import Task
from distill.token_batches import collate_pairs
from distill.translate import Engine
from distill.translation import distil_pairs, for_vocabulary, learned_rows, teach_pairs
from distill.translations import Translations
from distill.two_sided import with_prefix
from distill.vocabulary import tokenizer_sum, train_vocabulary

LOG = logging.getLogger("potstill")
VOCABULARY = "vocabulary"
FASTER = ("export.seq2seq.teacher", "open_teacher")
"""What makes a teacher's graph lies downstream: it is named here and not imported, so that no arrow runs back."""


def teacher_settings(recipe: Recipe) -> Mapping[str, Any]:
    """A teacher that is built from a config has a vocabulary of its own."""
    return _vocabulary_settings(recipe) if recipe.teacher.config is not None else {}


def _vocabulary_settings(recipe: Recipe) -> Mapping[str, Any]:
    """What a vocabulary depends on besides the data."""
    return {"vocabulary": settings(recipe.vocabulary or VocabularyRecipe(), recipe.task.kind)}


def make_teacher(opened: Run, folder: Path) -> Manifest:
    """Train the teacher into `folder`, from a checkpoint or from random weights."""
    recipe, dataset = opened.recipe, opened.dataset
    task, training = dataset.task, recipe.teacher.training
    source = opened.source(recipe.teacher.model, recipe.teacher.config)
    if recipe.teacher.model is not None and source is not None:
        model, tokenizer = load_seq2seq(source), load_tokenizer(source)
        if recipe.teacher.source_prefix is not None:
            tokenizer = with_prefix(tokenizer, recipe.teacher.source_prefix)
    else:
        tokenizer = _vocabulary(opened, "teach")
        keys = recipe.teacher.config if isinstance(recipe.teacher.config, dict) else {}
        model = build_seq2seq(source or keys, tokenizer, task, recipe.seed)
    set_languages(model, tokenizer, task)
    work = opened.work("teach")
    result = teach_pairs(model, tokenizer, dataset, training, work, recipe.seed, opened.report) if training else {}
    save(model, tokenizer, task, folder)
    return {**result, "vocabulary": len(tokenizer)}


def _vocabulary(opened: Run, stage: str) -> PreTrainedTokenizerBase:
    """A tokenizer for the training pairs; a step that goes on has the one it began with.

    The first process makes it, and all read what it wrote.
    """
    folder = opened.work(stage) / VOCABULARY

    def make() -> bool:
        if not folder.exists():
            train = opened.dataset.splits["train"]
            texts = [*train.texts, *(train.targets or ())]
            with files.new_folder(folder) as temporary:
                recipe = opened.recipe.vocabulary or VocabularyRecipe()
                train_vocabulary(texts, recipe).save_pretrained(temporary)
        return True

    processes.from_first(make)
    return load_tokenizer(folder)


def signal_settings(recipe: Recipe) -> Mapping[str, Any]:
    """How the teacher is asked; words are softened by the student's temperature."""
    words = {"temperature": recipe.student.temperature} if recipe.label.word_logits else {}
    return {"label": settings(recipe.label, recipe.task.kind), **words}


def make_signals(opened: Run, folder: Path) -> Manifest:
    """Write the teacher's translations into `folder`."""
    recipe, source = opened.recipe, opened.folder / "teacher"
    model, tokenizer = load_seq2seq(source), load_tokenizer(source)
    set_languages(model, tokenizer, opened.dataset.task)
    work = opened.work("label")
    engine = _engine(recipe.label.engine, model, tokenizer, source, opened.dataset.task, work)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    teacher = Teacher(model, tokenizer, opened.dataset.task, files.sha256(source / "model.safetensors"), engine)
    found, how = label_pairs(
        teacher, opened.dataset, recipe.label, recipe.student.temperature, work, report=opened.report
    )
    translations.write(found, folder)
    return {**how, "engine": "torch" if engine is None else "onnx"}


def _engine(
    chosen: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase, source: Path, task: Task, work: Path
) -> Engine | None:
    """The teacher in onnxruntime; None where torch translates.

    Raises:
        CheckpointError: `onnx` is asked for, and the teacher cannot be exported.
        MissingExtraError: `onnx` is asked for, and onnxruntime is not installed.
    """
    if chosen == "torch" or (chosen == "auto" and torch.cuda.is_available()):
        return None
    try:
        found = getattr(importlib.import_module(FASTER[0]), FASTER[1])(model, tokenizer, source, task, work)
    except (CheckpointError, MissingExtraError) as error:
        if chosen == "onnx":
            raise
        LOG.warning("the teacher translates in torch, which is slower: %s", "; ".join(error.problems or [str(error)]))
        return None
    return cast(Engine, found)


def before_student(recipe: Recipe) -> Mapping[str, str]:
    """The folders that a student is made from, and the steps that make them."""
    return {"teacher": "teach"} | ({} if recipe.student.targets == "references" else {"signals": "label"})


def student_settings(recipe: Recipe) -> Mapping[str, Any]:
    """What a student depends on besides its own section."""
    return _vocabulary_settings(recipe) if _has_own_vocabulary(recipe) else {}


def _has_own_vocabulary(recipe: Recipe) -> bool:
    """Whether the student gets a vocabulary that its teacher, which came with one, does not have."""
    pretrained = recipe.teacher.model is not None
    return recipe.student.config is not None and pretrained and recipe.vocabulary is not None


def make_student(opened: Run, folder: Path) -> Manifest:
    """Build the student and distil into `folder`."""
    recipe, dataset = opened.recipe, opened.dataset
    teacher = opened.folder / "teacher"
    start = opened.source(recipe.student.model, recipe.student.config)
    if _has_own_vocabulary(recipe):
        tokenizer = _vocabulary(opened, "student")
    else:
        tokenizer = load_tokenizer(start if recipe.student.model is not None and start else teacher)
    model = build_seq2seq_student(recipe.student, load_seq2seq(teacher), tokenizer, dataset.task, start, recipe.seed)
    set_languages(model, tokenizer, dataset.task)
    signals = None if recipe.student.targets == "references" else translations.read(opened.folder / "signals")
    shrunk: dict[str, Any] = {}
    if recipe.student.vocabulary == "used":
        pruned, signals = _with_used_pieces(model, tokenizer, signals, dataset)
        model, tokenizer, shrunk = pruned.model, pruned.tokenizer, {"vocabulary": pruned.to_json()}
    work = opened.work("student")
    result = distil_pairs(model, tokenizer, dataset, signals, recipe.student, work, recipe.seed, report=opened.report)
    save(model, tokenizer, dataset.task, folder)
    return {**result, **shrunk}


def _with_used_pieces(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, found: Translations | None, dataset: Dataset
) -> tuple[Pruned, Translations | None]:
    """The student with the pieces of the data and of its teacher's translations, and these for its vocabulary."""
    pruned = prune_vocabulary(model, tokenizer, [*learned_texts(dataset), *(found.texts if found else ())])
    set_languages(pruned.model, pruned.tokenizer, dataset.task)
    return pruned, None if found is None else for_vocabulary(found, tokenizer, pruned)


def load(folder: Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """An encoder-decoder and its tokenizer."""
    return load_seq2seq(folder), load_tokenizer(folder)


def asked_batches(
    opened: Run, model: nn.Module, tokenizer: PreTrainedTokenizerBase, recipe: DistillationRecipe, count: int
) -> list[Batch]:
    """At most `count` of the pairs that the student learns from, drawn by the seed."""
    set_languages(model, tokenizer, opened.dataset.task)
    rows = drawn(
        learned_rows(tokenizer, opened.dataset, _signals(opened, tokenizer, recipe), recipe), count, opened.recipe.seed
    )
    return [collate_pairs(tokenizer.pad_token_id, model, part) for part in chunks(rows, ASKED_AT_ONCE)]


def row_loss(recipe: DistillationRecipe) -> RowLoss:
    """The cross-entropy a word of each row of a batch."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        inputs = {key: value for key, value in batch.items() if key not in ("labels", "row")}
        labels = batch["labels"]
        words = functional.cross_entropy(
            model(**inputs).logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        return cast(torch.Tensor, words.sum(1) / (labels != IGNORED).sum(1).clamp(min=1))

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
    set_languages(model, tokenizer, opened.dataset.task)
    found, work = _signals(opened, tokenizer, recipe), opened.work(stage)
    return distil_pairs(
        model, tokenizer, opened.dataset, found, recipe, work, opened.recipe.seed, stage, opened.report, watchers
    )


def _signals(opened: Run, tokenizer: PreTrainedTokenizerBase, recipe: DistillationRecipe) -> Translations | None:
    """What the teacher said, if the student learns from it; its words only for a student of its vocabulary."""
    if recipe.targets == "references":
        return None
    found = translations.read(opened.folder / "signals")
    fits = found.words is None or found.tokenizer == tokenizer_sum(tokenizer)
    return found if fits else replace(found, words=None)
