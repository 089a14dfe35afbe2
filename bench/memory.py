"""Peak memory and load time of one model, each taken in a fresh process that holds nothing else.

`python -m bench.memory` is that process: it prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from bench.backends import opener
from bench.batches import fixed_batch
from bench.candidates import Candidate
from distill.errors import RunError
from distill.report import Memory

STATUS = Path("/proc/self/status")
ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600  # seconds


def measure_memory(candidate: Candidate, threads: int, batch: int, length: int) -> Memory:
    """Load the model in a new process, let it answer one batch `(batch, length)`, and read its peak.

    The load time is that of a single load, with the files most likely in the page cache.

    Raises:
        RunError: that process failed.
    """
    arguments = [candidate.runtime, candidate.precision, str(candidate.folder.resolve())]
    found = _in_new_process([*arguments, str(threads), str(batch), str(length)], candidate.name)
    return Memory(
        model=candidate.model,
        runtime=candidate.runtime,
        precision=candidate.precision,
        method=candidate.method,
        threads=threads,
        batch=batch,
        length=length,
        **found,
    )


def _in_new_process(arguments: list[str], name: str) -> dict[str, Any]:
    """What the process in this module's `main` prints."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "ignore", "-m", "bench.memory", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{name}: measuring its memory took more than {TIMEOUT} s") from error
    if done.returncode:
        raise RunError(f"{name}: measuring its memory failed", done.stderr.strip().splitlines()[-3:])
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


def load_and_answer(
    runtime: str, precision: str, folder: Path, threads: int, batch: int, length: int
) -> dict[str, Any]:
    """The peak of this process before the model and after one answer, in bytes, and the milliseconds of loading."""
    open_backend = opener(runtime)  # imports the runtime
    inputs = fixed_batch(folder / "tokenizer.json", (), batch, length, seed=0)
    imported, start = peak_bytes(), time.perf_counter_ns()
    with open_backend(folder, precision, threads, "cpu") as backend:
        loaded = time.perf_counter_ns()
        backend.run(inputs)
        return {"peak_bytes": peak_bytes(), "import_bytes": imported, "load_ms": (loaded - start) / 1e6}


def peak_bytes(status: Path = STATUS) -> int:
    """The largest resident size of this process so far.

    VmHWM starts afresh with each program; getrusage, the way out where there is no such file, is handed down from
    the process that started this one.
    """
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # not on every system, and not needed where there is a status file

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@click.command(hidden=True)
@click.argument("runtime")
@click.argument("precision")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("threads", type=int)
@click.argument("batch", type=int)
@click.argument("length", type=int)
def main(runtime: str, precision: str, folder: Path, threads: int, batch: int, length: int) -> None:
    """Load one model, answer one batch, print peak and load time as JSON."""
    click.echo(json.dumps(load_and_answer(runtime, precision, folder, threads, batch, length)))


if __name__ == "__main__":
    main()
