"""Times of several models, taken in turns in one process, so that a busy minute slows all of them and not one.

A round asks each model once, in an order that changes. Short turns begin with a run that is not counted: it brings the
weights back into the caches that the model before it emptied, as in a process that serves one model.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.candidates import Candidate
from bench.compare import Interval, median_interval, speedup
from bench.quiet import too_busy
from distill.environment import cores
from distill.rows import Latency

Work = Callable[[int], float | None]
"""One run; it is given the number of its round, so that all models meet the same text in the same round.

Returned are the milliseconds that it took where another process did it and knows better than this one's clock.
"""

WARM_UP_ROUNDS = 2
SHORT_MS = 50.0
VERY_SHORT_MS = 5.0


@dataclass(frozen=True)
class Place:
    """Where models run."""

    device: str
    threads: int


@dataclass(frozen=True)
class Cell:
    """What is asked of every model alike."""

    device: str
    threads: int
    batch: int
    length: int
    work: str = "ids"
    beams: int | None = None


@dataclass(frozen=True)
class Effort:
    """How long to measure: until `seconds` are over, but at least and at most so many rounds."""

    seconds: float
    min_rounds: int = 5
    max_rounds: int = 200


Name = TypeVar("Name", bound=Hashable)
Times = Mapping[Name, NDArray[np.float64]]
"""Milliseconds `(rounds, runs a round)`; each model has as many rounds, not as many runs a round."""


def time_in_turns(work: Mapping[Name, Work], effort: Effort, seed: int) -> Times[Name]:
    """Run every model's work in rounds; rounds at the start that only warm up take time but are not kept."""
    order, generator = list(work), np.random.default_rng(seed)
    kept: dict[Name, list[list[float]]] = {candidate: [] for candidate in order}
    with _no_garbage_collection():
        start = time.perf_counter_ns()
        turns = _warm_up(work, effort)
        for number in range(effort.max_rounds):
            if number >= effort.min_rounds and _seconds_since(start) >= effort.seconds:
                break
            for place in generator.permutation(len(order)):
                candidate = order[place]
                kept[candidate].append(_turn(work[candidate], number, turns[candidate]))
    return {candidate: np.asarray(rounds, np.float64) for candidate, rounds in kept.items()}


def _warm_up(work: Mapping[Name, Work], effort: Effort) -> dict[Name, int]:
    """Run everything a few times, and settle how many runs each model makes in a turn."""
    start, last = time.perf_counter_ns(), {}
    for _ in range(WARM_UP_ROUNDS):
        last = {candidate: _milliseconds(run, 0) for candidate, run in work.items()}
        if _seconds_since(start) > effort.seconds / 4:
            break
    return {candidate: _runs_a_turn(milliseconds) for candidate, milliseconds in last.items()}


def _runs_a_turn(milliseconds: float) -> int:
    """More runs of what is short: its single run is decided by chance, and five of them still cost little."""
    if milliseconds < VERY_SHORT_MS:
        return 5
    return 3 if milliseconds < SHORT_MS else 1


def _turn(run: Work, number: int, runs: int) -> list[float]:
    """The milliseconds of one model's turn; a turn of several runs begins with one that is not counted."""
    if runs > 1:
        run(number)
    return [_milliseconds(run, number) for _ in range(runs)]


def _milliseconds(run: Work, number: int) -> float:
    """How long one run takes, by its own account or on a clock that never goes back."""
    start = time.perf_counter_ns()
    told = run(number)
    return (time.perf_counter_ns() - start) / 1e6 if told is None else told


def _seconds_since(start: int) -> float:
    """Seconds since a reading of the clock."""
    return (time.perf_counter_ns() - start) / 1e9


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect now, and not in the middle of somebody's turn."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def summarise(cell: Cell, times: Times[Candidate], baseline: Candidate, others: float | None = None) -> list[Latency]:
    """One row a model: the median of its rounds' medians with its interval, other percentiles over all runs.

    `others` is how many cores other processes took meanwhile.
    """
    medians = {candidate: np.median(rounds, axis=1) for candidate, rounds in times.items()}
    busy = too_busy(others, cell.threads, cores())
    reason = f"the machine was busy: other processes took {others} of {cores()} core(s)" if busy else None
    rows = [
        _row(cell, candidate, rounds, median_interval(medians[candidate]), _ratio(candidate, baseline, medians))
        for candidate, rounds in times.items()
    ]
    return [replace(row, others_cores=others, reason=reason) for row in rows]


def _row(
    cell: Cell, candidate: Candidate, rounds: NDArray[np.float64], median: Interval, ratio: dict[str, Any]
) -> Latency:
    """One model in one cell."""
    p95, p99 = (float(value) for value in np.percentile(rounds, [95, 99]))
    return Latency(
        model=candidate.model,
        runtime=candidate.runtime,
        precision=candidate.precision,
        method=candidate.method,
        device=cell.device,
        threads=cell.threads,
        batch=cell.batch,
        length=cell.length,
        work=cell.work,
        beams=cell.beams,
        p50_ms=median.value,
        p95_ms=p95,
        p99_ms=p99,
        p50_low_ms=median.low,
        p50_high_ms=median.high,
        per_second=cell.batch * 1000 / median.value,
        runs=rounds.size,
        **ratio,
    )


def _ratio(
    candidate: Candidate, baseline: Candidate, medians: Mapping[Candidate, NDArray[np.float64]]
) -> dict[str, Any]:
    """The speedup over the baseline, for models other than it, where it was measured in the same rounds."""
    if candidate == baseline or baseline not in medians:
        return {}
    ratio = speedup(medians[baseline], medians[candidate])
    return {
        "baseline": baseline.name,
        "speedup": ratio.value,
        "speedup_low": ratio.low,
        "speedup_high": ratio.high,
    }
