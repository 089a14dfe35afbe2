"""Asking the teacher for translations: sequence-level distillation (Kim and Rush 2016), in shards that survive.

Each different sentence is translated once. Of its n best translations the one most like the example's reference is
kept (their sequence-level interpolation); a sentence without a reference keeps the likeliest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from distill import files, processes, translations
from distill.bleu import sentence_scorer
from distill.dataset import Dataset
from distill.errors import DataError
from distill.label import ASKED
from distill.progress import Report, silent
from distill.recipe import LabelRecipe
from distill.task import Task
from distill.translate import Engine, Hypothesis, Search, translate
from distill.translations import Translations
from distill.vocabulary import tokenizer_sum
from distill.words import ask_words

Scorer = Callable[[str, str], float]


@dataclass(frozen=True)
class Question:
    """One example: its id, its sentence, and the translation that the data has for it."""

    id: str
    text: str
    reference: str | None


@dataclass(frozen=True)
class Teacher:
    """Who is asked: model, tokenizer, task, the sha256 of its weights, and what translates; None: the model itself."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    task: Task
    sum: str
    engine: Engine | None = None

    def translate(self, texts: Sequence[str], search: Search) -> list[tuple[Hypothesis, ...]]:
        """For each text its translations, the likeliest first."""
        if self.engine is not None:
            return self.engine(texts, search)
        return translate(self.model, self.tokenizer, texts, self.task, search)


def label_pairs(
    teacher: Teacher, dataset: Dataset, recipe: LabelRecipe, temperature: float, work: Path, report: Report = silent
) -> tuple[Translations, Mapping[str, Any]]:
    """The teacher's translations of the training and unlabelled sentences, and how it went.

    Shards that `work` holds are not asked again. With several processes each one asks for its part of the shards; all
    get all answers.

    Raises:
        DataError: a stored shard cannot be read.
    """
    shards = _shards(questions(dataset), recipe.shard_sentences)
    names = [work / f"shard-{number:05d}" for number in range(len(shards))]
    mine = [number for number in range(len(shards)) if number % processes.count() == processes.place()]
    left = [number for number in mine if not names[number].exists()]
    started, asked = time.monotonic(), 0
    for done, number in enumerate(left):
        report("label", len(mine) - len(left) + done, len(mine))
        with files.new_folder(names[number]) as folder:
            translations.write(_answers(teacher, shards[number], recipe, temperature), folder)
        asked += len(_sentences(shards[number]))
    seconds = time.monotonic() - started
    processes.wait()
    found = translations.together([translations.read(name) for name in names])
    return found, _how(found, asked, seconds)


def _how(found: Translations, asked: int, seconds: float) -> dict[str, Any]:
    """What a step's manifest keeps."""
    return {
        "examples": len(found.ids),
        "never_ended": found.ended.count(False),
        "sentences_per_second": round(asked / seconds, 2) if asked else None,
    }


def questions(dataset: Dataset) -> list[Question]:
    """Every example that a student may learn from, each id once.

    Raises:
        DataError: there is none.
    """
    found: dict[str, Question] = {}
    for split in (dataset.splits[name] for name in ASKED if name in dataset.splits):
        references = split.targets or (None,) * len(split)
        for name, text, reference in zip(split.ids, split.texts, references, strict=True):
            found.setdefault(name, Question(name, text, reference))
    if not found:
        raise DataError("there is no sentence to translate")
    return list(found.values())


def _shards(asked: Sequence[Question], size: int) -> list[list[Question]]:
    """Questions in shards of about `size` different sentences; examples of one sentence are in one shard."""
    places = {text: place for place, text in enumerate(dict.fromkeys(question.text for question in asked))}
    count = -(-len(places) // size)
    shards: list[list[Question]] = [[] for _ in range(count)]
    for question in asked:
        shards[places[question.text] % count].append(question)
    return shards


def _sentences(shard: Sequence[Question]) -> list[str]:
    """The different sentences of a shard."""
    return list(dict.fromkeys(question.text for question in shard))


def _answers(teacher: Teacher, shard: Sequence[Question], recipe: LabelRecipe, temperature: float) -> Translations:
    """One shard's translations."""
    search = Search(recipe.beams, recipe.n_best or recipe.beams, recipe.length_penalty, recipe.max_batch_tokens)
    sentences = _sentences(shard)
    answers = teacher.translate(sentences, search)
    best = dict(zip(sentences, answers, strict=True))
    scorer = None if recipe.keep == "first" else sentence_scorer(recipe.keep, teacher.task.target_language)
    kept = [choose(best[question.text], question.reference, scorer) for question in shard]
    texts = [hypothesis.text for hypothesis in kept]
    words = None
    if recipe.word_logits:
        words = ask_words(
            teacher.model,
            teacher.tokenizer,
            [question.text for question in shard],
            texts,
            teacher.task,
            recipe.word_logits,
            temperature,
            recipe.max_batch_tokens,
        )
    return Translations(
        tuple(question.id for question in shard),
        tuple(texts),
        tuple(hypothesis.ended for hypothesis in kept),
        words,
        teacher.sum,
        tokenizer_sum(teacher.tokenizer),
    )


def choose(hypotheses: Sequence[Hypothesis], reference: str | None, scorer: Scorer | None) -> Hypothesis:
    """The hypothesis to learn from, among those that came to an end if there are any; the first of equal ones."""
    ended = [hypothesis for hypothesis in hypotheses if hypothesis.ended] or list(hypotheses)
    if reference is None or scorer is None:
        return ended[0]
    return max(ended, key=lambda hypothesis: scorer(hypothesis.text, reference))
