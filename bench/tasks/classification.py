"""What is measured of classifiers: labels against gold labels, fixed ids and real texts against the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bench.backends import Backend, Batch, Classifier, open_candidate, own_time
from bench.batches import fixed_batch, mean_length
from bench.candidates import Candidate
from bench.latency import Cell, Place, Work
from bench.quality import BATCH_SIZE, form, quality_row, warnings_below, with_difference
from distill.data import Dataset, Split
from distill.errors import DataError
from distill.metrics import Score, examples_needed, majority_baseline, paired_difference, score
from distill.recipe import BenchRecipe
from distill.rows import Latency, Parity, Quality
from distill.task import Task
from export.texts import Text

LENGTHS = (16, 64, 128)
TIMING = (
    "batches are fixed, made of real token ids without padding; `text` rows answer one real text a run, tokenizer "
    "included"
)
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


def answer(candidate: Candidate, task: Task, texts: Sequence[Text], threads: int, beams: int = 1) -> Answers:
    """Let one model answer all texts, and put its labels in the order of `task`; there is no search for `beams`.

    Raises:
        DataError: the model answers other labels than the task has.
    """
    with open_candidate(candidate, threads, "cpu") as backend:
        order = _label_order(candidate, backend, task)
        return Answers(candidate, cast(Classifier, backend).logits(texts, BATCH_SIZE)[:, order])


def _label_order(candidate: Candidate, backend: Backend, task: Task) -> list[int]:
    """Where the model puts each of the task's labels; matched by name, never by place."""
    own = backend.task.labels
    missing = [f"only the data has {label!r}" for label in task.labels if label not in own]
    extra = [f"only the model has {label!r}" for label in own if label not in task.labels]
    if missing or extra:
        raise DataError(f"{candidate.name} was trained for other labels than the data has", missing + extra)
    return [own.index(label) for label in task.labels]


def scores(own: Answers, split: Split, task: Task, seed: int) -> list[Score]:
    """The task's metric."""
    return [score(task.metric, np.asarray(split.labels), own.labels, task.num_labels, seed)]


def quality_rows(answers: Sequence[Answers], dataset: Dataset, split: str, seed: int) -> list[Quality]:
    """One row a model; the difference is to the first of `answers`, on the same examples.

    Raises:
        DataError: the split has no labels, or fewer or more than there are answers.
    """
    rows, task, first = dataset.splits[split], dataset.task, answers[0]
    found = [quality_row(own.candidate, split, scores(own, rows, task, seed)[0]) for own in answers]
    gold = np.asarray(rows.labels, np.int64)
    apart = [
        paired_difference(task.metric, gold, own.labels, first.labels, task.num_labels, seed) for own in answers[1:]
    ]
    differing = [with_difference(row, first.candidate, each) for row, each in zip(found[1:], apart, strict=True)]
    return [found[0], *differing]


def parity(a: Answers, b: Answers) -> Parity:
    """The largest difference of a logit, and the share of examples with equal labels."""
    return Parity(
        a=form(a.candidate),
        b=form(b.candidate),
        max_abs=float(np.abs(a.logits - b.logits).max()),
        agreement=float(np.mean(a.labels == b.labels)),
        n=len(a.logits),
    )


def notes(rows: Sequence[Quality], dataset: Dataset, split: str) -> list[str]:
    """What the data say about the scores: what no learning at all would give, and what n can tell apart."""
    task = dataset.task
    baseline = majority_baseline(
        dataset.splits["train"].labels, dataset.splits[split].labels, task.metric, task.num_labels
    )
    said = f"always answering the commonest training label scores {baseline:.3f} ({task.metric}, {split})"
    return [*warnings_below(rows, baseline, "always answering the commonest label"), said, *_resolution(rows)]


def _resolution(rows: Sequence[Quality]) -> list[str]:
    """How many examples it would take to see a difference of one point."""
    flipped = max((row.flipped / row.n for row in rows if row.flipped), default=0.0)
    needed = examples_needed(flipped, 0.01)
    if not flipped or needed <= rows[0].n:
        return []
    return [
        f"{rows[0].n} examples cannot tell apart models that differ by one point: with {flipped:.1%} of the labels "
        f"flipped that takes about {needed:,}"
    ]


def cells(
    settings: BenchRecipe, place: Place, lengths: Sequence[int], texts: Sequence[Text], first: Candidate, longest: int
) -> list[Cell]:
    """The cells of one device and thread count; the last ones are real texts, with as many at a time."""
    where = (place.device, place.threads)
    found = [Cell(*where, batch, length) for batch in settings.batch_sizes for length in lengths]
    if texts:
        length = mean_length(first.folder / "tokenizer.json", texts, longest)
        found += [Cell(*where, batch, length, work="text") for batch in settings.batch_sizes]
    return found


def work(candidate: Candidate, backend: Backend, cell: Cell, texts: Sequence[Text], seed: int) -> Work:
    """The same batch of ids each time; or the next texts, tokenizer included."""
    if cell.work == "text":
        return partial(_answer_texts, cast(Classifier, backend), list(texts), cell.batch)
    batch = fixed_batch(candidate.folder / "tokenizer.json", texts, cell.batch, cell.length, seed)
    return partial(_answer_batch, backend, batch)


def _answer_batch(backend: Backend, batch: Batch, number: int) -> float | None:
    """Answer the same ids in each round."""
    backend.run(batch)
    return own_time(backend)


def _answer_texts(backend: Classifier, texts: Sequence[Text], batch: int, number: int) -> float | None:
    """Answer the texts of round `number`, counting round."""
    first = number * batch
    backend.logits([texts[place % len(texts)] for place in range(first, first + batch)], batch)
    return own_time(backend)


def finished(row: Latency, done: Work, times: NDArray[np.float64]) -> Latency:
    """The row as it is: there is one answer a text."""
    return row
