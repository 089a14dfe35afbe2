"""A bundle's nodes against onnxruntime's own clock: milliseconds of each, as it runs them after its rewrites.

A node that holds a branch or a loop counts without what runs inside of it. Times are whole microseconds, cut off, and
what lies between nodes belongs to none.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from bench.with_onnxruntime import with_options
from distill.errors import DataError
from export.runtime import Model, Translator

SUFFIX, RUN, OPTIMIZED = "_kernel_time", "model_run", "model.onnx"
WARM_UP = 2
BETWEEN = "between nodes"
"""Under this name: what onnxruntime does between nodes."""
LOG_ERRORS = 3
Event = Mapping[str, Any]
Times = Mapping[str, float]


Work = Callable[[Model], Callable[[], object]]
"""Given an open model, what it is to do in each round."""


@dataclass(frozen=True)
class Profile:
    """Milliseconds of each node, round by round, the graph that they are of, and those of rounds without a profile."""

    rounds: tuple[Times, ...]
    graph: onnx.GraphProto
    plain_ms: tuple[float, ...]


@dataclass(frozen=True)
class _Turn:
    """A model that is timed in turns with others, and the same one on a session that writes a profile."""

    plain: Callable[[], object]
    profiled: Callable[[], object]
    session: Any
    folder: Path
    plain_ms: list[float] = field(default_factory=list)


def profile_in_turns(models: Sequence[tuple[Model, Work]], rounds: int) -> list[Profile]:
    """Let models do their work in turns on one thread each, so that a busy minute slows all of them.

    Each does it twice in a turn, and the second time counts: the first brings its weights back into the caches.

    Raises:
        DataError: there were more nodes than onnxruntime writes down.
    """
    with tempfile.TemporaryDirectory(prefix="potstill-") as scratch:
        turns = [_turn(model, work, Path(scratch) / str(place)) for place, (model, work) in enumerate(models)]
        for _ in range(WARM_UP + rounds):
            for turn in turns:
                turn.profiled()
                turn.profiled()
                turn.plain()
                start = time.perf_counter_ns()
                turn.plain()
                turn.plain_ms.append((time.perf_counter_ns() - start) / 1e6)
        return [_profile(turn, WARM_UP + rounds) for turn in turns]


def _turn(model: Model, work: Work, folder: Path) -> _Turn:
    """Open a model's second session."""
    folder.mkdir()
    profiled = with_options(model, _options(model, folder))
    session = profiled.engine.onnx if isinstance(profiled, Translator) else profiled.session.onnx
    return _Turn(work(model), work(profiled), session, folder)


def _profile(turn: _Turn, rounds: int) -> Profile:
    """Read what onnxruntime wrote down."""
    written = Path(turn.session.end_profiling()).read_bytes()
    runs = node_times(json.loads(written))
    each = len(runs) // (2 * rounds)
    if not each or len(runs) % (2 * rounds):
        raise DataError(f"the profile was full after {len(runs)} runs: take fewer rounds, or shorter texts")
    counted = [runs[start : start + each] for start in range(each, len(runs), 2 * each)]
    graph = onnx.load(turn.folder / OPTIMIZED).graph
    return Profile(tuple(map(_together, counted[WARM_UP:])), graph, tuple(turn.plain_ms[WARM_UP:]))


def _options(model: Model, folder: Path) -> ort.SessionOptions:
    """One thread, a profile, and the graph as onnxruntime runs it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = not isinstance(model, Translator)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / OPTIMIZED)
    options.log_severity_level = LOG_ERRORS
    return options


def node_times(events: Sequence[Event]) -> list[Times]:
    """Milliseconds of each node in each run, of an onnxruntime profile; nodes inside of others are not counted twice.

    The nodes of a run, and what is between them, add up to the whole run.
    """
    kept = [each for each in events if each["name"] == RUN or each.get("cat") == "Node"]
    kept.sort(key=lambda each: (each["ts"], -each["dur"], each["name"] != RUN))
    runs: list[Counter[str]] = []
    open_now: list[tuple[float, str]] = []
    for event in kept:
        name = BETWEEN if event["name"] == RUN else str(event["name"]).removesuffix(SUFFIX)
        if name == BETWEEN:
            runs.append(Counter())
            open_now = []
        while open_now and open_now[-1][0] <= event["ts"]:
            open_now.pop()
        if not runs or (name != BETWEEN and not open_now):
            continue
        runs[-1][name] += event["dur"]
        if open_now:
            runs[-1][open_now[-1][1]] -= event["dur"]
        open_now.append((event["ts"] + event["dur"], name))
    return [{name: time / 1000 for name, time in run.items()} for run in runs]


def _together(runs: Sequence[Times]) -> Times:
    """The sum of several runs."""
    return {name: sum(run.get(name, 0.0) for run in runs) for name in dict.fromkeys(n for run in runs for n in run)}
