"""The verb: candidates, settings and data in, a report out. Every number comes with its n, interval and environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.candidates import Candidate, from_folder, size
from bench.grid import latency_rows
from bench.markdown import markdown
from bench.memory import measure_memory
from bench.notes import notes
from bench.page import page
from bench.plots import write_png
from bench.quality import Answers, answer, parity_rows, quality_rows, texts_of
from distill.data import Dataset
from distill.environment import cores, environment
from distill.errors import DataError
from distill.files import write_text
from distill.recipe import BenchRecipe
from distill.report import Memory, Report, write_report
from export.texts import Text

Progress = Callable[[str, int, int], None]
"""Called with what is being measured, how many of its parts are done, and how many there are."""

MEMORY_BATCH = 1


@dataclass(frozen=True)
class Plan:
    """Which parts of the report to measure; what is left out is left empty."""

    quality: bool = True
    latency: bool = True
    memory: bool = True
    split: str = "test"


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def measure(
    name: str,
    candidates: Sequence[Candidate],
    settings: BenchRecipe,
    dataset: Dataset | None = None,
    *,
    seed: int = 1,
    plan: Plan | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure all candidates; the first one is what the others are compared with.

    Without a data set there is no quality, and the ids that are timed are drawn from the vocabulary.

    Raises:
        DataError: no candidates, two of one name, or models trained for other labels than the data has.
        CheckpointError, BundleError, RunError: a candidate cannot be loaded.
    """
    _check(candidates)
    plan = plan or Plan()
    texts = texts_of(dataset.splits[plan.split]) if dataset else []
    answers = _answers(candidates, dataset, texts, progress) if dataset and plan.quality else []
    memory = _memory(candidates, min(settings.lengths), progress) if plan.memory else []
    latency, skipped = latency_rows(candidates, settings, texts, seed, progress) if plan.latency else ([], [])
    report = Report(
        name=name,
        environment=environment(max((row.threads for row in latency), default=cores())),
        quality=tuple(quality_rows(answers, dataset, plan.split, seed)) if dataset and answers else (),
        latency=tuple(latency),
        size=tuple(size(candidate) for candidate in candidates),
        memory=tuple(memory),
        parity=tuple(parity_rows(answers)),
    )
    return replace(report, notes=(*notes(report, dataset, plan.split), *skipped))


def measure_folders(
    name: str,
    folders: Sequence[Path],
    settings: BenchRecipe,
    target: Path,
    dataset: Dataset | None = None,
    *,
    seed: int = 1,
    plan: Plan | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure bundles and checkpoints named like their folders, and write the report into `target`."""
    candidates = [from_folder(folder) for folder in folders]
    report = measure(name, candidates, settings, dataset, seed=seed, plan=plan, progress=progress)
    write_all(report, target)
    return report


def write_all(report: Report, folder: Path) -> None:
    """Write `report.json`, `report.md` and, where there is something to show, `pareto.png` and `pareto.html`."""
    write_report(report, folder)
    write_text(folder / "report.md", markdown(report))
    if report.quality and report.latency:
        write_png(report, folder / "pareto.png")
        write_text(folder / "pareto.html", page(report))


def _check(candidates: Sequence[Candidate]) -> None:
    """Refuse what cannot be told apart in a report."""
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise DataError("expected models with different names", [f"{name}: twice" for name in twice] or ["none given"])


def _answers(
    candidates: Sequence[Candidate], dataset: Dataset, texts: Sequence[Text], progress: Progress
) -> list[Answers]:
    """Every candidate's answers to the texts."""
    answers = []
    for done, candidate in enumerate(candidates):
        progress("quality", done, len(candidates))
        answers.append(answer(candidate, dataset.task, texts, threads=cores()))
    progress("quality", len(candidates), len(candidates))
    return answers


def _memory(candidates: Sequence[Candidate], length: int, progress: Progress) -> list[Memory]:
    """Every candidate's peak memory, one process after the other."""
    rows = []
    for done, candidate in enumerate(candidates):
        progress("memory", done, len(candidates))
        rows.append(measure_memory(candidate, threads=1, batch=MEMORY_BATCH, length=length))
    progress("memory", len(candidates), len(candidates))
    return rows
