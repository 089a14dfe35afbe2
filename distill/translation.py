"""Teaching and distilling encoder-decoders: what they learn from, and how they are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from distill import processes
from distill.batches import Example
from distill.bleu import corpus_score
from distill.dataset import Dataset, Split
from distill.errors import DataError
from distill.label import ASKED
from distill.loop import Judge
from distill.losses import UNLABELLED
from distill.progress import Report, silent
from distill.recipe import DistillationRecipe, TrainingRecipe
from distill.smaller_vocabulary import Pruned
from distill.task import Task
from distill.token_batches import collate_pairs, encode_pairs, lengths
from distill.training import Course, train
from distill.translate import Search, by_length, translate
from distill.translations import Translations
from distill.vocabulary import tokenizer_sum
from distill.word_loss import word_loss
from distill.words import renumbered


def teach_pairs(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    recipe: TrainingRecipe,
    work: Path,
    seed: int,
    report: Report = silent,
) -> Mapping[str, Any]:
    """Train `model` in place on the training pairs by cross-entropy; its best weights on validation stay.

    `work` holds the checkpoints from which a run that was cut off goes on. Returns what happened.

    Raises:
        InterruptedRunError: asked to stop.
        RunError: the loss is not finite, or disk or memory are full.
    """
    split = dataset.splits["train"]
    rows = encode_pairs(tokenizer, split.texts, split.targets or (), dataset.task)
    loss = partial(word_loss, temperature=1.0, alpha=0.0, smoothing=recipe.label_smoothing_factor)
    return _trained("teach", model, tokenizer, rows, loss, dataset, recipe, work, seed, report, ())


def distil_pairs(
    student: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    found: Translations | None,
    recipe: DistillationRecipe,
    work: Path,
    seed: int,
    stage: str = "student",
    report: Report = silent,
    watchers: Sequence[TrainerCallback] = (),
) -> Mapping[str, Any]:
    """Train `student` in place on the teacher's translations, on the data's own, or on both (`recipe.targets`).

    Where the teacher's words are known, they count with `recipe.alpha`. Translations that never ended are left out.
    Without `recipe.training` nothing is learned.

    Raises:
        DataError: the signals are of other examples, another temperature, or pieces of another tokenizer.
        InterruptedRunError: asked to stop.
        RunError: the loss is not finite, or disk or memory are full.
    """
    if recipe.training is None:
        return {}
    rows = learned_rows(tokenizer, dataset, found, recipe)
    smoothing = recipe.training.label_smoothing_factor
    loss = partial(word_loss, temperature=recipe.temperature, alpha=recipe.alpha, smoothing=smoothing)
    result = _trained(stage, student, tokenizer, rows, loss, dataset, recipe.training, work, seed, report, watchers)
    return {**result, "pairs": len(rows)}


def _trained(
    stage: str,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Example],
    loss: Any,
    dataset: Dataset,
    recipe: TrainingRecipe,
    work: Path,
    seed: int,
    report: Report,
    watchers: Sequence[TrainerCallback],
) -> Mapping[str, Any]:
    """Train on rows, and say how validation was scored."""
    task, validation = dataset.task, dataset.splits["validation"]
    judge = judge_of(tokenizer, validation, task, recipe.tokens_per_batch)
    course = Course(stage, rows, (), loss, task, seed, judge, watchers)
    result = train(model, tokenizer, course, recipe, work, report)
    return {**result, "signature": corpus_score(task.metric, ["a"], ["a"], task.target_language)[1]}


def learned_rows(
    tokenizer: PreTrainedTokenizerBase, dataset: Dataset, found: Translations | None, recipe: DistillationRecipe
) -> list[Example]:
    """What a student learns from, numbered: pairs of ids, with the teacher's words where they are known.

    Raises:
        DataError: the signals do not fit, or none of the translations came to an end.
    """
    rows: list[Example] = []
    if recipe.targets != "references":
        assert found is not None
        _expect_fitting(tokenizer, found, recipe)
        for split in (dataset.splits[name] for name in ASKED if name in dataset.splits):
            rows += _distilled(tokenizer, split, found, dataset.task)
    if recipe.targets != "distilled":
        split = dataset.splits["train"]
        rows += encode_pairs(tokenizer, split.texts, split.targets or (), dataset.task)
    if not rows:
        raise DataError("none of the teacher's translations came to an end: there is nothing to learn from")
    return [row | {"row": number} for number, row in enumerate(rows)]


def _expect_fitting(tokenizer: PreTrainedTokenizerBase, found: Translations, recipe: DistillationRecipe) -> None:
    """Refuse words of another tokenizer or temperature; whole translations fit any student.

    Raises:
        DataError: saying what differs.
    """
    if found.words is None:
        return
    if found.tokenizer != tokenizer_sum(tokenizer):
        raise DataError(
            "the teacher's words are pieces of its own tokenizer, and the student has another; set label.word_logits "
            "to 0, or give the student the teacher's tokenizer"
        )
    if found.words.temperature != recipe.temperature:
        raise DataError(
            f"the teacher's words were softened by {found.words.temperature:g}, not by student.temperature "
            f"{recipe.temperature:g}; label again"
        )


def for_vocabulary(found: Translations, tokenizer: PreTrainedTokenizerBase, pruned: Pruned) -> Translations:
    """Translations whose words are pieces of `tokenizer`, for a student that keeps a part of it; others as they are."""
    if found.words is None or found.tokenizer != tokenizer_sum(tokenizer):
        return found
    words = renumbered(found.words, pruned.ids, pruned.tokenizer.pad_token_id)
    return replace(found, words=words, tokenizer=tokenizer_sum(pruned.tokenizer))


def _distilled(tokenizer: PreTrainedTokenizerBase, split: Split, found: Translations, task: Task) -> list[Example]:
    """One split's sentences with the teacher's translations, and its words where they are known."""
    pairs = zip(split.texts, found.rows(split.ids), strict=True)
    known = [(text, place) for text, place in pairs if found.ended[place] and found.texts[place].strip()]
    rows = encode_pairs(tokenizer, [text for text, _ in known], [found.texts[place] for _, place in known], task)
    if found.words is None:
        return rows
    words = [found.words.of(place) for _, place in known]
    if any(len(row["labels"]) != len(word[0]) for row, word in zip(rows, words, strict=True)):
        raise DataError("the teacher's words are not those of its translations (task.max_target_length?); label again")
    return [row | {"words": word} for row, word in zip(rows, words, strict=True)]


def judge_of(tokenizer: PreTrainedTokenizerBase, split: Split, task: Task, max_batch_tokens: int) -> Judge:
    """What says how good a model is: the task's metric of its greedy translations of `split`, and its loss a word.

    Several processes translate a part each.
    """
    references = split.targets or ()
    rows = encode_pairs(tokenizer, split.texts, references, task)

    def judge(model: nn.Module) -> dict[str, float]:
        here = range(processes.place(), len(split), processes.count())
        texts = [split.texts[row] for row in here]
        answers = translate(model, tokenizer, texts, task, Search(max_batch_tokens=max_batch_tokens))
        own = [(row, answer[0].text) for row, answer in zip(here, answers, strict=True)]
        found = [text for _, text in sorted(processes.gathered(own))]
        value, _ = corpus_score(task.metric, found, references, task.target_language)
        return {"loss": _loss(model, tokenizer, [rows[row] for row in here], max_batch_tokens), task.metric: value}

    return judge


def _loss(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: list[Example], budget: int) -> float:
    """Cross-entropy a word of all processes' rows, without smoothing."""
    device, total, words = next(model.parameters()).device, 0.0, 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in by_length([int(size) for size in lengths(rows).sum(axis=1)], budget):
            inputs = collate_pairs(tokenizer.pad_token_id, model, [rows[row] for row in batch])
            labels, _ = inputs.pop("labels").to(device), inputs.pop("row")
            inputs = {key: value.to(device) if torch.is_tensor(value) else value for key, value in inputs.items()}
            count = int((labels != UNLABELLED).sum())
            total += float(word_loss(model(**inputs).logits, labels, None, 1.0, 0.0, 0.0)) * count
            words += count
    model.train(was_training)
    totals, counts = zip(*processes.gathered([(total, words)]), strict=True)
    return float(sum(totals) / max(sum(counts), 1))
