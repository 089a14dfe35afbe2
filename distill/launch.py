"""One command as several processes of this machine: what torchrun does, with the first process's own exit code.

The others run the same command line. All know of each other by the environment variables that torchrun sets; a command
that was started by a launcher starts none. Torch-free, for the number of threads is settled before torch is imported.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from distill.environment import cores
from distill.errors import RunError

LAUNCHED = "RANK"
"""Stands in the environment of each process that a launcher started."""
FOLLOWS = "POTSTILL_FOLLOWS_ITS_PARENT"
"""Stands in the environment of each process that `together` started."""
PATIENCE = 10.0
"""Seconds that the others have to come to their end."""
PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent ends."""

Others = list[tuple["subprocess.Popen[bytes]", IO[bytes]]]


@contextmanager
def together(count: int, program: str) -> Iterator[None]:
    """While entered, `count` processes run `python -m program` with the arguments of this one, which is the first.

    Raises:
        RunError: another process failed, and this one did only because of that.
    """
    if FOLLOWS in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if count == 1 or LAUNCHED in os.environ:
        yield
        return
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // count))),
    }
    words = [sys.executable, "-m", program, *sys.argv[1:]]
    with ExitStack() as stack:
        others: Others = []
        stack.callback(_end, others)
        for rank in range(1, count):
            said = stack.enter_context(tempfile.TemporaryFile())
            known = {**os.environ, **common, LAUNCHED: str(rank), "LOCAL_RANK": str(rank), FOLLOWS: "1"}
            others.append((subprocess.Popen(words, env=known, stdout=subprocess.DEVNULL, stderr=said), said))
        os.environ.update(common, **{LAUNCHED: "0", "LOCAL_RANK": "0"})
        try:
            yield
        except RuntimeError as error:  # what the connection raises when another process is gone
            raise _failed(others, error) from error
        _wait(others)


def _free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _failed(others: Others, error: Exception) -> Exception:
    """Why the processes could not go on: the first that fails takes the others with it."""
    for rank, (process, said) in enumerate(others, start=1):
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        if code < 0:
            return RunError(f"process {rank} was ended by signal {-code}; run the same command again to go on")
        if code > 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            return RunError(
                f"process {rank} failed: {lines[-1].removeprefix('error: ') if lines else f'exit code {code}'}"
            )
    return error


def _wait(others: Others) -> None:
    """Let the others come to their end.

    Raises:
        RunError: one failed.
    """
    for process, _ in others:
        process.wait()
    if any(process.returncode for process, _ in others):
        raise _failed(others, RunError("another process failed"))


def _end(others: Others) -> None:
    """Leave no process behind."""
    for process, _ in others:
        if process.poll() is None:
            process.terminate()
    for process, _ in others:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
