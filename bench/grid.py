"""The latency grid: every device, thread count, batch size and length, all models of one cell together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from bench.backends import Backend, open_candidate
from bench.candidates import Candidate, kind_of, longest
from bench.latency import Cell, Effort, Place, summarise, time_in_turns
from bench.quiet import cores_of_others, read_clocks
from bench.tasks import KINDS, Kind
from distill.environment import cores
from distill.errors import ProviderError
from distill.recipe import BenchRecipe
from distill.rows import Latency
from export.texts import Text

MOST_TEXTS = 512
Progress = Callable[[str, int, int], None]
Loaded = Mapping[Candidate, Backend]


def latency_rows(
    candidates: Sequence[Candidate], settings: BenchRecipe, texts: Sequence[Text], seed: int, progress: Progress
) -> tuple[list[Latency], list[str]]:
    """The rows of the whole grid, and notes on what was left out and why."""
    kind = KINDS[kind_of(candidates[0])]
    lengths, notes = _lengths(candidates, lengths_of(settings, kind))
    asked, first = list(texts[:MOST_TEXTS]), candidates[0]
    places = [Place(device, threads) for device in settings.devices for threads in _threads(settings, device)]
    rows: list[Latency] = []
    total = 1
    for index, place in enumerate(places):
        with ExitStack() as stack:
            loaded, unavailable = _open_all(candidates, place, stack)
            notes += [note for note in unavailable if note not in notes]
            cells = _cells(kind, settings, place, lengths, asked, loaded)
            total = max(total, len(places) * len(cells))
            for done, cell in enumerate(cells):
                progress("latency", index * len(cells) + done, total)
                rows += _measure_cell(kind, cell, loaded, settings, asked, seed, first)
    progress("latency", total, total)
    return rows, notes


def lengths_of(settings: BenchRecipe, kind: Kind) -> tuple[int, ...]:
    """The lengths that the recipe asks for, or that go with the kind of task."""
    return kind.lengths if settings.lengths is None else settings.lengths


def _threads(settings: BenchRecipe, device: str) -> list[int]:
    """Thread counts without repetition; a GPU is asked by one process with all of them."""
    wanted = [cores() if count == "all" else count for count in settings.threads]
    return list(dict.fromkeys(wanted)) if device == "cpu" else [cores()]


def _lengths(candidates: Sequence[Candidate], lengths: Sequence[int]) -> tuple[list[int], list[str]]:
    """The lengths that every model takes, and a note on the others."""
    positions = {candidate.name: longest(candidate) for candidate in candidates}
    name, most = min(
        ((n, p) for n, p in positions.items() if p is not None), key=lambda pair: pair[1], default=("", None)
    )
    fitting = [length for length in lengths if most is None or length <= most]
    left_out = ", ".join(str(length) for length in lengths if length not in fitting)
    return fitting, [f"length {left_out} left out: {name} takes at most {most} tokens"] if left_out else []


def _open_all(candidates: Sequence[Candidate], place: Place, stack: ExitStack) -> tuple[Loaded, list[str]]:
    """Every model that runs on the device, and why the others do not."""
    loaded, notes = {}, []
    for candidate in candidates:
        try:
            loaded[candidate] = stack.enter_context(open_candidate(candidate, place.threads, place.device))
        except ProviderError as error:
            notes.append(f"{place.device} for {candidate.runtime} {candidate.precision} unavailable: {error}")
    return loaded, notes


def _cells(
    kind: Kind, settings: BenchRecipe, place: Place, lengths: Sequence[int], texts: Sequence[Text], loaded: Loaded
) -> list[Cell]:
    """The cells of one device and thread count."""
    if not loaded:
        return []
    first = next(iter(loaded))
    return kind.cells(settings, place, lengths, texts, first, loaded[first].task.max_length)


def _measure_cell(
    kind: Kind, cell: Cell, loaded: Loaded, settings: BenchRecipe, texts: Sequence[Text], seed: int, baseline: Candidate
) -> list[Latency]:
    """One row a model."""
    work = {candidate: kind.work(candidate, backend, cell, texts, seed) for candidate, backend in loaded.items()}
    effort = Effort(settings.seconds_per_cell, settings.min_rounds, settings.max_rounds)
    before = read_clocks()
    times = time_in_turns(work, effort, seed)
    rows = summarise(cell, times, baseline, cores_of_others(before, read_clocks()))
    return [kind.finished(row, work[each], times[each]) for row, each in zip(rows, times, strict=True)]
