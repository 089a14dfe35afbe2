"""The verb: candidates, settings and data in, a report out. Every number comes with its n, interval and environment."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.candidates import Candidate, from_folder, kind_of, made_for, size
from bench.curves import panels, write_curves
from bench.grid import latency_rows, lengths_of
from bench.layer_costs import MOST_TEXTS, ROUNDS, Asked, measure_layers
from bench.markdown import markdown
from bench.memory import measure_memory
from bench.notes import notes
from bench.page import page
from bench.peers.environments import PEERS
from bench.peers.prepare import peers_of
from bench.plots import write_png
from bench.quality import origins
from bench.tasks import KINDS, Answers, Kind
from distill.data import Dataset
from distill.environment import cores, environment
from distill.errors import DataError
from distill.files import write_text
from distill.recipe import BenchRecipe
from distill.report import LayerCost, Memory, Report, write_report
from export.texts import Text

Progress = Callable[[str, int, int], None]
"""Called with what is being measured, how many of its parts are done, and how many there are."""

MEMORY_BATCH = 1
MEMORY_LENGTH = 16


@dataclass(frozen=True)
class Plan:
    """Which parts of the report to measure; what is left out is left empty."""

    quality: bool = True
    latency: bool = True
    memory: bool = True
    layers: bool = True
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
    kind = _kind(candidates, dataset)
    plan = plan or Plan()
    texts = kind.texts_of(dataset.splits[plan.split]) if dataset else []
    answers = _answers(kind, candidates, dataset, texts, settings, progress) if dataset and plan.quality else []
    length = min(lengths_of(settings, kind), default=MEMORY_LENGTH)
    memory = _memory(candidates, length, progress) if plan.memory else []
    layers = _layers(candidates, settings, texts, seed, progress) if plan.layers else []
    latency, skipped = latency_rows(candidates, settings, texts, seed, progress) if plan.latency else ([], [])
    report = Report(
        name=name,
        environment=environment(max((row.threads for row in latency), default=cores())),
        quality=tuple(kind.quality_rows(answers, dataset, plan.split, seed)) if dataset and answers else (),
        latency=tuple(latency),
        size=tuple(size(candidate) for candidate in candidates),
        memory=tuple(memory),
        parity=tuple(kind.parity(source, own) for source, own in origins(answers)),
        layers=tuple(layers),
    )
    return replace(report, notes=(*notes(report, kind, dataset, plan.split), *skipped))


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
    own = [from_folder(folder) for folder in folders]
    with with_peers(own, settings, dataset) as (candidates, left_out):
        report = measure(name, candidates, settings, dataset, seed=seed, plan=plan, progress=progress)
    report = replace(report, notes=(*report.notes, *left_out))
    write_all(report, target)
    return report


@contextmanager
def with_peers(
    candidates: Sequence[Candidate], settings: BenchRecipe, dataset: Dataset | None
) -> Iterator[tuple[list[Candidate], list[str]]]:
    """The candidates and the peers that are asked for, whose files are there for as long; and who was left out."""
    if not settings.against:
        yield list(candidates), []
        return
    with tempfile.TemporaryDirectory(prefix="potstill-") as scratch:
        texts = _kind(candidates, dataset).texts_of(dataset.splits["train"]) if dataset else []
        peers, left_out = peers_of(candidates, settings.against, texts, Path(scratch))
        yield [*candidates, *peers], left_out


def write_all(report: Report, folder: Path) -> None:
    """Write `report.json`, `report.md` and, where there is something to show, pictures.

    `pareto.png` and `pareto.html` show quality against speed, `latency.png` how latency grows.
    """
    write_report(report, folder)
    write_text(folder / "report.md", markdown(report))
    if report.quality and report.latency:
        write_png(report, folder / "pareto.png")
        write_text(folder / "pareto.html", page(report))
    if growing := panels(report):
        write_curves(growing, folder / "latency.png", f"{report.name}: how latency grows")


def _kind(candidates: Sequence[Candidate], dataset: Dataset | None) -> Kind:
    """The kind of task; refuses what cannot be told apart in a report, and models of different kinds.

    Raises:
        DataError: saying what was expected.
    """
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise DataError("expected models with different names", [f"{name}: twice" for name in twice] or ["none given"])
    wanted = dataset.task.kind if dataset else kind_of(candidates[0])
    strange = [f"{each.name}: {kind_of(each)}" for each in candidates if kind_of(each) != wanted]
    if strange:
        raise DataError(f"expected models for {wanted}", strange)
    return KINDS[wanted]


def _answers(
    kind: Kind,
    candidates: Sequence[Candidate],
    dataset: Dataset,
    texts: Sequence[Text],
    settings: BenchRecipe,
    progress: Progress,
) -> list[Answers]:
    """Every candidate's answers to the texts."""
    answers = []
    for done, candidate in enumerate(candidates):
        progress("quality", done, len(candidates))
        answers.append(kind.answer(candidate, dataset.task, texts, cores(), settings.beams[0]))
    progress("quality", len(candidates), len(candidates))
    return answers


def _memory(candidates: Sequence[Candidate], length: int, progress: Progress) -> list[Memory]:
    """The peak memory of each candidate that is no peer, one process after the other."""
    own, rows = [candidate for candidate in candidates if candidate.runtime not in PEERS], []
    for done, candidate in enumerate(own):
        progress("memory", done, len(own))
        rows.append(measure_memory(candidate, threads=1, batch=MEMORY_BATCH, length=length))
    progress("memory", len(own), len(own))
    return rows


def _layers(
    candidates: Sequence[Candidate], settings: BenchRecipe, texts: Sequence[Text], seed: int, progress: Progress
) -> list[LayerCost]:
    """What each layer costs of the bundles that were made for a processor."""
    own = [each for each in candidates if each.runtime == "onnxruntime" and made_for(each) == "cpu"]
    if not own:
        return []
    progress("layers", 0, 1)
    asked = Asked(rounds=min(ROUNDS[kind_of(own[0])], settings.max_rounds), texts=tuple(texts[:MOST_TEXTS]), seed=seed)
    rows = [row for costs in measure_layers(own, asked) for row in costs.rows]
    progress("layers", 1, 1)
    return rows
