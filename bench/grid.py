"""The latency grid: every device, thread count, batch size and length, all models of one cell together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from bench.backends import Backend, open_candidate
from bench.batches import fixed_batch, mean_length
from bench.candidates import Candidate, limits
from bench.latency import Cell, Effort, Work, summarise, time_in_turns
from bench.quiet import cores_of_others, read_clocks
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
    lengths, notes = _lengths(candidates, settings.lengths)
    places = [(device, threads) for device in settings.devices for threads in _threads(settings, device)]
    cells = len(settings.batch_sizes) * len(lengths) + bool(texts)
    rows: list[Latency] = []
    for index, (device, threads) in enumerate(places):
        with ExitStack() as stack:
            loaded, unavailable = _open_all(candidates, device, threads, stack)
            notes += [note for note in unavailable if note not in notes]
            wanted = _cells(settings, device, threads, lengths, texts, loaded)
            for done, cell in enumerate(wanted):
                progress("latency", index * cells + done, len(places) * cells)
                rows += _measure_cell(cell, loaded, settings, texts, seed, candidates[0])
    progress("latency", len(places) * cells, len(places) * cells)
    return rows, notes


def _threads(settings: BenchRecipe, device: str) -> list[int]:
    """Thread counts without repetition; a GPU is asked by one process with all of them."""
    wanted = [cores() if count == "all" else count for count in settings.threads]
    return list(dict.fromkeys(wanted)) if device == "cpu" else [cores()]


def _lengths(candidates: Sequence[Candidate], lengths: Sequence[int]) -> tuple[list[int], list[str]]:
    """The lengths that every model takes, and a note on the others."""
    positions = {candidate.name: limits(candidate).positions for candidate in candidates}
    name, most = min(
        ((n, p) for n, p in positions.items() if p is not None), key=lambda pair: pair[1], default=("", None)
    )
    fitting = [length for length in lengths if most is None or length <= most]
    left_out = ", ".join(str(length) for length in lengths if length not in fitting)
    return fitting, [f"length {left_out} left out: {name} takes at most {most} tokens"] if left_out else []


def _open_all(candidates: Sequence[Candidate], device: str, threads: int, stack: ExitStack) -> tuple[Loaded, list[str]]:
    """Every model that runs on the device, and why the others do not."""
    loaded, notes = {}, []
    for candidate in candidates:
        try:
            loaded[candidate] = stack.enter_context(open_candidate(candidate, threads, device))
        except ProviderError as error:
            notes.append(f"{device} for {candidate.runtime} {candidate.precision} unavailable: {error}")
    return loaded, notes


def _cells(
    settings: BenchRecipe, device: str, threads: int, lengths: Sequence[int], texts: Sequence[Text], loaded: Loaded
) -> list[Cell]:
    """The cells of one device and thread count; the last one is real texts, one at a time."""
    if not loaded:
        return []
    cells = [Cell(device, threads, batch, length) for batch in settings.batch_sizes for length in lengths]
    if texts:
        first = next(iter(loaded))
        longest = loaded[first].task.max_length
        length = mean_length(first.folder / "tokenizer.json", texts[:MOST_TEXTS], longest)
        cells.append(Cell(device, threads, 1, length, work="text"))
    return cells


def _measure_cell(
    cell: Cell, loaded: Loaded, settings: BenchRecipe, texts: Sequence[Text], seed: int, baseline: Candidate
) -> list[Latency]:
    """One row a model."""
    make = _text_work if cell.work == "text" else _id_work
    work = {candidate: make(candidate, backend, cell, texts, seed) for candidate, backend in loaded.items()}
    effort = Effort(settings.seconds_per_cell, settings.min_rounds, settings.max_rounds)
    before = read_clocks()
    times = time_in_turns(work, effort, seed)
    return summarise(cell, times, baseline, cores_of_others(before, read_clocks()))


def _id_work(candidate: Candidate, backend: Backend, cell: Cell, texts: Sequence[Text], seed: int) -> Work:
    """The same batch of ids each time."""
    batch = fixed_batch(candidate.folder / "tokenizer.json", texts, cell.batch, cell.length, seed)
    return lambda number: backend.run(batch)


def _text_work(candidate: Candidate, backend: Backend, cell: Cell, texts: Sequence[Text], seed: int) -> Work:
    """The next text each time, tokenizer included."""
    return partial(_answer_one, backend, list(texts[:MOST_TEXTS]))


def _answer_one(backend: Backend, texts: Sequence[Text], number: int) -> object:
    """Answer text `number`, counting round."""
    return backend.logits([texts[number % len(texts)]], 1)
