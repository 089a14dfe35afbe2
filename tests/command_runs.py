"""Real commands in child processes that start at once, and can be killed at any file operation.

Children are forked by multiprocessing's fork server, which has the heavy imports behind it: each of them runs a
command's `main()` with its own command line, like a fresh interpreter, but a second after the start and not ten.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from distill.files import sha256

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["distill.cli", "distill.steps", "compress.cli", "compress.pipeline", "runs"])
WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
TRAINING = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 16,
    "learning_rate": 0.005,
    "logging_steps": 2,
    "bf16": False,
}


@dataclass(frozen=True)
class Project:
    """A recipe with its data and its encoder in one folder."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The recipe's file."""
        return self.folder / "recipe.yaml"

    def value(self) -> dict[str, Any]:
        """The recipe's plain values, to be changed and given to `parse`."""
        return dict(json.loads(self.recipe.read_text()))


def write_project(folder: Path, encoder: Path, rows: int = 128) -> Project:
    """Rows, a copy of the encoder and a recipe of a few steps: 7 an epoch, 16 rows each."""
    from conftest import write_toy_csv

    folder.mkdir(parents=True, exist_ok=True)
    write_toy_csv(folder / "toy.csv", rows)
    shutil.copytree(encoder, folder / "encoder")
    recipe = {
        "name": "toy",
        "data": {"source": "toy.csv", "allow_leakage": True},
        "task": {"max_length": 32},
        "teacher": {"model": "encoder", "training": TRAINING},
        "student": {"layers": 2, "training": TRAINING},
        "prune": {"training": TRAINING | {"num_train_epochs": 1}, "importance_examples": 32},
        "quantize": None,
        "bench": {"batch_sizes": [1], "lengths": [8], "threads": [1], "seconds_per_cell": 0.05, "max_rounds": 5},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return Project(folder)


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: the signal that killed it), what it printed, file operations seen."""

    code: int
    out: str
    err: str
    operations: int


@dataclass(frozen=True)
class Running:
    """A command that runs."""

    process: ForkServerProcess
    base: Path

    def end(self, seconds: float = 240) -> Ended:
        """Wait for its end."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {seconds} s: {self.err()}")
        counted = self.base.with_suffix(".count")
        operations = int(counted.read_text() or 0) if counted.exists() else 0
        return Ended(self.process.exitcode, self.base.with_suffix(".out").read_text(), self.err(), operations)

    def err(self) -> str:
        """What it wrote to stderr so far."""
        return self.base.with_suffix(".err").read_text()

    def wait_for(self, seen: Callable[[], bool], what: str) -> None:
        """Wait until something can be seen from outside."""
        import time

        for _ in range(24_000):
            if seen():
                return
            assert self.process.exitcode is None, f"ended before {what}: {self.err()}"
            time.sleep(0.005)
        raise AssertionError(f"never saw {what}")


def start(
    *arguments: str | Path,
    watched: Path,
    strikes: Mapping[int | str, int] | None = None,
    limit: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Start `distill …` or `compress …`; file operations below `watched` are counted.

    Right before operation `n` the process gets the signal `strikes[n]`, right before the n-th one on a file NAME the
    signal `strikes["NAME#n"]`; `limit` is the largest file in bytes that it may write.
    """
    base = watched.with_name(f"{watched.name}-{len(list(watched.parent.glob('*.out')))}")
    base.with_suffix(".out").touch()
    base.with_suffix(".err").touch()
    words = [str(argument) for argument in arguments]
    settings = (dict(strikes or {}), limit, dict(environment or {}))
    process = CONTEXT.Process(target=_command, args=(words, base, watched, *settings))
    process.start()
    return Running(process, base)


def command(
    *arguments: str | Path, watched: Path, strikes: Mapping[int | str, int] | None = None, limit: int | None = None
) -> Ended:
    """Run a command to its end."""
    return start(*arguments, watched=watched, strikes=strikes, limit=limit).end()


def _command(
    words: list[str],
    base: Path,
    watched: Path,
    strikes: Mapping[int | str, int],
    limit: int | None,
    environment: Mapping[str, str],
) -> None:
    """What the child does."""
    import importlib

    for number, name in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(base.with_suffix(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.update(environment)
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    _watch(base.with_suffix(".count"), watched, strikes)
    sys.argv = words
    module = importlib.import_module(f"{words[0]}.cli")
    module.main()


def _watch(counted: Path, watched: Path, strikes: Mapping[int | str, int]) -> None:
    """Count file operations below a folder, and strike at some of them."""
    seen = 0
    by_name: Counter[str] = Counter()
    root, own = str(watched), os.getpid()
    file = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in WATCHED and str(arguments[0]).startswith(root) and os.getpid() == own:
            seen += 1
            os.pwrite(file, str(seen).encode(), 0)
            name = os.path.basename(str(arguments[0]))  # noqa: PTH119
            by_name[name] += 1
            for key in (seen, f"{name}#{by_name[name]}"):
                if key in strikes:
                    os.kill(own, strikes[key])

    sys.addaudithook(hook)


def weights(folder: Path) -> str:
    """The sha256 of a step's weights."""
    return sha256(folder / "model.safetensors")


def copy_steps(source: Path, target: Path, *names: str) -> Path:
    """A run folder with some finished steps of another one."""
    target.mkdir(parents=True)
    (target / ".lock").touch()
    for name in names:
        shutil.copytree(source / name, target / name)
    return target


def steps_in_journal(folder: Path, stage: str) -> list[tuple[int, bool, bool]]:
    """(step, is an evaluation, is the summary) of a stage's lines in metrics.jsonl."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], "eval_loss" in line, "train_runtime" in line) for line in lines if line["stage"] == stage]
