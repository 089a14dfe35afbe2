"""What is measured of translation models: BLEU and chrF of greedy or beam search, words a second on real sentences.

All models search alike (`bench/written.py`), and each is timed on what it writes itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bench.backends import Backend, Batch, Translating, open_candidate, own_time
from bench.batches import fixed_batch, mean_length
from bench.candidates import Candidate
from bench.compare import median_interval
from bench.latency import Cell, Place, Work
from bench.quality import BATCH_SIZE, form, quality_row, warnings_below, with_difference
from bench.words import WARNING, name_of
from bench.written import Written
from distill.bleu import corpus_score
from distill.data import Dataset, Split
from distill.errors import DataError
from distill.metrics import Score
from distill.recipe import BenchRecipe
from distill.rows import Latency, Parity, Quality
from distill.task import TRANSLATION_METRICS, Task
from distill.text_metrics import paired_difference, score
from export.texts import Text

LENGTHS: tuple[int, ...] = ()
TIMING = (
    "a run translates as many real sentences as its batch has, tokenizer included, or, for `ids`, writes as many "
    "tokens as its sources have; words and tokens a second are those that each model itself wrote"
)


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model wrote, in the order of the texts, with a search of `beams`."""

    candidate: Candidate
    written: tuple[Written, ...]
    beams: int = 1

    @property
    def texts(self) -> list[str]:
        """The translations."""
        return [each.text for each in self.written]


def texts_of(split: Split) -> list[Text]:
    """The sentences to translate."""
    return list(split.texts)


def answer(candidate: Candidate, task: Task, texts: Sequence[Text], threads: int, beams: int = 1) -> Answers:
    """Let one model translate all texts, those of like length together.

    Raises:
        DataError: the model does something else.
    """
    found: dict[int, Written] = {}
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    with open_candidate(candidate, threads, "cpu") as backend:
        if backend.task.kind != task.kind:
            raise DataError(f"{candidate.name}: expected a model for {task.kind}, found one for {backend.task.kind}")
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch = [str(texts[row]) for row in rows]
            found.update(zip(rows, cast(Translating, backend).translate(batch, beams), strict=True))
    return Answers(candidate, tuple(found[row] for row in range(len(texts))), beams)


def scores(own: Answers, split: Split, task: Task, seed: int) -> list[Score]:
    """BLEU and chrF, the task's metric first."""
    return [score(metric, own.texts, split.targets or (), task.target_language, seed) for metric in metrics_of(task)]


def metrics_of(task: Task) -> list[str]:
    """All metrics, the task's first."""
    return sorted(TRANSLATION_METRICS, key=lambda metric: metric != task.metric)


def quality_rows(answers: Sequence[Answers], dataset: Dataset, split: str, seed: int) -> list[Quality]:
    """One row a model and metric; the difference is to the first of `answers`, on the same sentences.

    Raises:
        DataError: the split has no translations.
    """
    rows, task, first = dataset.splits[split], dataset.task, answers[0]
    references, language = rows.targets or (), task.target_language
    found: list[Quality] = []
    for own in answers:
        stopped = sum(each.stopped for each in own.written)
        for each in scores(own, rows, task, seed):
            row = replace(quality_row(own.candidate, split, each), beams=own.beams, stopped=stopped)
            if own is not first:
                apart = paired_difference(each.metric, own.texts, first.texts, references, language, seed)
                row = with_difference(row, first.candidate, apart)
            found.append(row)
    return found


def parity(a: Answers, b: Answers) -> Parity:
    """The share of sentences that both translate in the same words."""
    same = [x == y for x, y in zip(a.texts, b.texts, strict=True)]
    return Parity(a=form(a.candidate), b=form(b.candidate), agreement=float(np.mean(same)), n=len(same))


def notes(rows: Sequence[Quality], dataset: Dataset, split: str) -> list[str]:
    """What the data say about the scores, and which models did not come to an end."""
    task, held_out = dataset.task, dataset.splits[split]
    baseline, _ = corpus_score(task.metric, held_out.texts, held_out.targets or (), task.target_language)
    judged = [row for row in rows if row.metric == task.metric]
    said = f"copying the sources scores {baseline:.2f} ({task.metric}, {split})"
    stopped = [
        f"{WARNING}{name_of(row)}: {row.stopped} of {row.n} translations were stopped at the longest length "
        f"({task.max_target_length or task.max_length} tokens)"
        for row in judged
        if row.stopped
    ]
    search = f"quality is that of {'greedy search' if rows[0].beams == 1 else f'{rows[0].beams} beams'} for all models"
    return [*warnings_below(judged, baseline, "copying the sources"), *stopped, said, search]


def cells(
    settings: BenchRecipe, place: Place, lengths: Sequence[int], texts: Sequence[Text], first: Candidate, longest: int
) -> list[Cell]:
    """Real sentences, and fixed ids where lengths were asked for."""
    device, threads = place.device, place.threads
    found = [Cell(device, threads, batch, length, beams=1) for batch in settings.batch_sizes for length in lengths]
    if not texts:
        return found
    length = mean_length(first.folder / "tokenizer.json", texts, longest)
    sizes = [(beams, batch) for beams in settings.beams for batch in settings.batch_sizes]
    return [*found, *(Cell(device, threads, batch, length, "text", beams) for beams, batch in sizes)]


@dataclass
class Writing:
    """One model's work in a cell, as `bench.latency.Work`; remembers what was written in each round."""

    backend: Backend
    run: Callable[[int], Sequence[Written]]
    written: dict[int, Sequence[Written]] = field(default_factory=dict)

    def __call__(self, number: int) -> float | None:
        """The work of round `number`."""
        self.written[number] = self.run(number)
        return own_time(self.backend)

    def per_second(self, times: NDArray[np.float64], words: bool) -> NDArray[np.float64]:
        """Words, or tokens, a second in each round `(rounds,)`, of milliseconds `(rounds, runs)`."""
        counts = [
            sum(len(each.text.split()) if words else each.tokens for each in self.written[number])
            for number in range(len(times))
        ]
        return np.asarray(1000 * np.asarray(counts) / np.median(times, axis=1), np.float64)


def work(candidate: Candidate, backend: Backend, cell: Cell, texts: Sequence[Text], seed: int) -> Writing:
    """The next sentences each time, tokenizer included; or the same ids."""
    if cell.work == "text":
        return Writing(backend, partial(_translate, cast(Translating, backend), [str(text) for text in texts], cell))
    batch = fixed_batch(candidate.folder / "tokenizer.json", texts, cell.batch, cell.length, seed)
    return Writing(backend, partial(_write, backend, batch))


def _translate(backend: Translating, texts: Sequence[str], cell: Cell, number: int) -> list[Written]:
    """Translate the sentences of round `number`, counting round."""
    first = number * cell.batch
    batch = [texts[place % len(texts)] for place in range(first, first + cell.batch)]
    return backend.translate(batch, cell.beams or 1)


def _write(backend: Backend, batch: Batch, number: int) -> list[Written]:
    """Write as many tokens as the sources have."""
    backend.run(batch)
    rows, length = batch["input_ids"].shape
    return [Written("", length, stopped=True)] * rows


def finished(row: Latency, done: Work, times: NDArray[np.float64]) -> Latency:
    """The row with what was written a second, by the rounds of `times` `(rounds, runs)`."""
    writing = cast(Writing, done)
    written = [each for number in range(len(times)) for each in writing.written[number]]
    row = replace(
        row,
        new_tokens=float(np.mean([each.tokens for each in written])),
        tokens_per_second=float(np.median(writing.per_second(times, words=False))),
    )
    if row.work != "text":
        return row
    words = median_interval(writing.per_second(times, words=True))
    return replace(row, words_per_second=words.value, words_per_second_low=words.low, words_per_second_high=words.high)
