"""What embedding a bundle costs an app: `python -m bench.startup BUNDLE` installs the runtime afresh and measures.

A new environment gets `potstill[cpu]` from this checkout and nothing else. Then a new process, again and again,
imports, loads the bundle and answers one text.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from distill.errors import RunError

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "potstill.py", "distill", "export", "bench", "compress")
FORBIDDEN = ("torch", "transformers", "datasets", "onnx", "pydantic")
ANSWER = "import sys; from potstill import load; print(load(sys.argv[1], threads=1)([sys.argv[2]]), flush=True)"
FOUND = "import importlib.util as u, sys; print(*[name for name in sys.argv[1:] if u.find_spec(name)])"
TEXT = "a gorgeous film"


@dataclass(frozen=True)
class Startup:
    """Size of the environment, and seconds from the start of a process to its first answer.

    `cpu_seconds` is the processor's time of one such process, which a busy machine hardly changes.
    """

    installed_bytes: int
    bundle_bytes: int
    runs: int
    median_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    cpu_seconds: float


def measure_startup(bundle: Path, runs: int = 11, root: Path = ROOT) -> Startup:
    """Install the runtime from the checkout `root` into a new environment and time `runs` fresh processes.

    Raises:
        RunError: it cannot be installed, something of the training side came along, or the bundle does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="potstill-startup-") as folder:
        python = install_runtime(root, Path(folder))
        refuse_modules(python)
        installed = folder_bytes(Path(folder) / "environment")
        _first_answer(python, bundle)  # the first process also writes bytecode and warms the disk cache
        before = os.times()
        seconds = [_first_answer(python, bundle) for _ in range(runs)]
        after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Startup(
        installed, folder_bytes(bundle), runs, statistics.median(seconds), min(seconds), max(seconds), cpu / runs
    )


def install_runtime(root: Path, folder: Path) -> Path:
    """A new environment below `folder` with `potstill[cpu]` alone; returns its interpreter."""
    source, environment = folder / "source", folder / "environment"
    source.mkdir()
    for name in SOURCES:  # a copy, so that building leaves nothing behind in the checkout
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (root / name).exists():
            shutil.copy(root / name, source / name)
    venv.create(environment)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", f"{source}[cpu]"], folder)
    return python


def refuse_modules(python: Path, names: Sequence[str] = FORBIDDEN) -> None:
    """Make sure that nothing of the training side can be imported.

    Raises:
        RunError: naming what can.
    """
    found = _run([str(python), "-c", FOUND, *names], python.parent).split()
    if found:
        raise RunError(f"the runtime's environment holds {', '.join(found)}, which only training needs")


def folder_bytes(folder: Path) -> int:
    """Size of all plain files below `folder`, links aside."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _first_answer(python: Path, bundle: Path) -> float:
    """Seconds from starting a process until its answer can be read."""
    begin = time.perf_counter()
    answer = _run([str(python), "-c", ANSWER, str(bundle.resolve()), TEXT], python.parent)
    seconds = time.perf_counter() - begin
    if not answer.startswith(("[Prediction(", "[Translation(")):
        raise RunError(f"expected an answer from {bundle}, found {answer[:80]!r}")
    return seconds


def _run(command: Sequence[str], folder: Path) -> str:
    """What a command prints; it runs outside the checkout, so that nothing is imported from there.

    Raises:
        RunError: it fails, with the end of what it wrote.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"{Path(command[0]).name} failed: {' '.join(done.stderr.split())[-400:]}")
    return done.stdout


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--runs", default=11, show_default=True, help="Fresh processes to time.")
def main(bundle: Path, runs: int) -> None:
    """Measure what embedding BUNDLE costs: JSON on stdout, one line on stderr."""
    found = measure_startup(bundle, runs)
    click.echo(json.dumps(asdict(found), indent=2))
    click.echo(
        f"{found.installed_bytes / 1e6:.0f} MB installed, bundle {found.bundle_bytes / 1e6:.1f} MB, "
        f"first answer after {found.median_seconds:.2f} s "
        f"({found.fastest_seconds:.2f} to {found.slowest_seconds:.2f} s in {runs} processes, "
        f"{found.cpu_seconds:.2f} s of processor time)",
        err=True,
    )


if __name__ == "__main__":
    main()
