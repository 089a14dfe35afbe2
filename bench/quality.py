"""Scores of several models on the same examples, their differences to the first, and how far forms of one are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.backends import Backend, open_candidate
from bench.candidates import Candidate, from_folder
from distill.data import Dataset, Split, read
from distill.environment import cores
from distill.errors import DataError
from distill.metrics import Score, paired_difference, score
from distill.recipe import Recipe
from distill.rows import Parity, Quality
from distill.task import Task
from export.texts import Text

BATCH_SIZE = 32
Logits = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model answered: logits `(n, labels)`, labels in the order of the data set's task."""

    candidate: Candidate
    logits: Logits

    @property
    def labels(self) -> NDArray[np.int64]:
        """The likeliest label of each example `(n,)`."""
        return np.asarray(self.logits.argmax(axis=1), np.int64)


def texts_of(split: Split) -> list[Text]:
    """The split's texts, or its pairs of texts."""
    return list(split.texts) if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))


def answer(candidate: Candidate, task: Task, texts: Sequence[Text], threads: int, device: str = "cpu") -> Answers:
    """Let one model answer all texts, and put its labels in the order of `task`.

    Raises:
        DataError: the model answers other labels than the task has.
    """
    with open_candidate(candidate, threads, device) as backend:
        order = _label_order(candidate, backend, task)
        return Answers(candidate, backend.logits(texts, BATCH_SIZE)[:, order])


def _label_order(candidate: Candidate, backend: Backend, task: Task) -> list[int]:
    """Where the model puts each of the task's labels; matched by name, never by place."""
    own = backend.task.labels
    missing = [f"only the data has {label!r}" for label in task.labels if label not in own]
    extra = [f"only the model has {label!r}" for label in own if label not in task.labels]
    if missing or extra:
        raise DataError(f"{candidate.name} was trained for other labels than the data has", missing + extra)
    return [own.index(label) for label in task.labels]


def quality_rows(answers: Sequence[Answers], dataset: Dataset, split: str, seed: int) -> list[Quality]:
    """One row a model; the difference is to the first of `answers`, on the same examples.

    Raises:
        DataError: the split has no labels, or fewer or more than there are answers.
    """
    gold = np.asarray(dataset.splits[split].labels, np.int64)
    return [_quality_row(each, answers[0], gold, dataset.task, split, seed) for each in answers]


def _quality_row(
    own: Answers, baseline: Answers, gold: NDArray[np.int64], task: Task, split: str, seed: int
) -> Quality:
    """One model's score."""
    found = score(task.metric, gold, own.labels, task.num_labels, seed)
    row = Quality(
        model=own.candidate.model,
        runtime=own.candidate.runtime,
        precision=own.candidate.precision,
        method=own.candidate.method,
        split=split,
        metric=found.metric,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        signature=found.signature,
    )
    return row if own is baseline else _with_difference(row, own, baseline, gold, task, seed)


def _with_difference(
    row: Quality, own: Answers, baseline: Answers, gold: NDArray[np.int64], task: Task, seed: int
) -> Quality:
    """The row with its difference to the baseline."""
    found = paired_difference(task.metric, gold, own.labels, baseline.labels, task.num_labels, seed)
    return replace(
        row,
        baseline=baseline.candidate.name,
        difference=found.value,
        difference_low=found.low,
        difference_high=found.high,
        flipped=found.flipped,
        difference_signature=found.signature,
    )


def parity_rows(answers: Sequence[Answers]) -> list[Parity]:
    """Each form of a model against the one it was made from: torch against onnxruntime fp32, fp32 against int8."""
    return [_parity(source, own) for own in answers if (source := _source(own, answers)) is not None]


def _source(own: Answers, answers: Sequence[Answers]) -> Answers | None:
    """What this form was made from: for fp32 graphs the checkpoint, for int8 graphs the last fp32 graph before it."""
    before = list(answers[: answers.index(own)]) if own in answers else []
    if own.candidate.runtime == "torch":
        return None
    if own.candidate.precision == "fp32":
        same = [each for each in before if each.candidate.model == own.candidate.model]
        return next((each for each in same if each.candidate.runtime == "torch"), None)
    graphs = [each for each in before if (each.candidate.runtime, each.candidate.precision) == ("onnxruntime", "fp32")]
    return graphs[-1] if graphs else None


def _parity(a: Answers, b: Answers) -> Parity:
    """The largest difference of a logit, and the share of examples with equal labels."""
    return Parity(
        a=_form(a.candidate),
        b=_form(b.candidate),
        max_abs=float(np.abs(a.logits - b.logits).max()),
        agreement=float(np.mean(a.labels == b.labels)),
        n=len(a.logits),
    )


def _form(candidate: Candidate) -> str:
    """A model's form in one line: "student torch", "student onnx fp32", "bundle onnx int8 static"."""
    if candidate.runtime == "torch":
        return f"{candidate.model} torch"
    return " ".join(filter(None, [candidate.model, "onnx", candidate.precision, candidate.method]))


def evaluate_folder(folder: Path, recipe: Recipe, base: Path, split: str) -> Score:
    """The task's metric of a checkpoint or bundle on a split of the recipe's data.

    Raises:
        DataError, CheckpointError, BundleError: the data or the model cannot be used.
    """
    dataset = read(recipe.data, recipe.task, recipe.seed, base)
    rows, task = dataset.splits[split], dataset.task
    found = answer(from_folder(folder), task, texts_of(rows), threads=cores())
    return score(task.metric, np.asarray(rows.labels), found.labels, task.num_labels, recipe.seed)
