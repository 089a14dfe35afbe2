"""A peer as a backend: its process answers questions, and says how long each took."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bench.backends import Backend, Batch
from bench.candidates import PEER, SOURCE, TASK
from bench.peers.environments import command
from bench.written import Written
from distill.errors import ProviderError, RunError
from distill.files import read_json
from distill.task import Task
from export.manifest import TOKENIZER
from export.texts import Text, TextReader, open_reader, read_limits

Arrays = dict[str, NDArray[np.int64]]


@dataclass
class Remote:
    """A model in a peer's process. `milliseconds` is what the last answer took, tokenizer included, talk left out."""

    name: str
    task: Task
    reader: TextReader
    process: subprocess.Popen[str]
    errors: IO[str]
    milliseconds: float = field(default=0.0, init=False)

    def run(self, batch: Batch) -> object:
        """Logits `(rows, labels)`, or translations of as many tokens as the sources have."""
        self.milliseconds = 0.0
        if self.task.kind == "translation":
            length = batch["input_ids"].shape[1]
            return self._ask(batch, beams=1, least=length, most=length)
        return self._ask(batch)

    def logits(self, texts: Sequence[Text], batch_size: int) -> NDArray[np.float32]:
        """Logits `(texts, labels)`."""
        self.milliseconds = 0.0
        starts = range(0, len(texts), batch_size)
        found = [self._ask(self._arrays(texts[start : start + batch_size])) for start in starts]
        return np.asarray([row for rows in found for row in rows], np.float32)

    def translate(self, texts: Sequence[str], beams: int) -> list[Written]:
        """One batch of sentences translated."""
        self.milliseconds = 0.0
        most = self.task.max_target_length or self.task.max_length
        rows = self._ask(self._arrays(texts), beams=beams, least=0, most=most)
        start = time.perf_counter_ns()
        found = [Written(self.reader.decode(row), len(row), len(row) >= most) for row in rows]
        self.milliseconds += (time.perf_counter_ns() - start) / 1e6
        return found

    def _arrays(self, texts: Sequence[Text]) -> Arrays:
        """The ids of one batch of texts."""
        start = time.perf_counter_ns()
        found = self.reader.arrays(self.reader.read(list(texts)))
        self.milliseconds += (time.perf_counter_ns() - start) / 1e6
        return found

    def _ask(self, batch: Batch, **rules: int) -> list[Any]:
        """One question and its answer.

        Raises:
            RunError: the peer failed.
        """
        question = {"ids": batch["input_ids"].tolist(), "mask": batch["attention_mask"].tolist(), **rules}
        found = _talk(self, question)
        self.milliseconds += float(found["milliseconds"])
        return list(found["answer"])


def _talk(remote: Remote, question: object) -> dict[str, Any]:
    """Send one line, if there is anything to send, and read one.

    Raises:
        RunError: the process ended, or says that it failed.
    """
    process = remote.process
    assert process.stdin is not None and process.stdout is not None
    try:
        if question is not None:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    found: dict[str, Any] = json.loads(line) if line else {"error": _last_lines(remote.errors)}
    if "error" in found:
        raise RunError(f"{remote.name} failed: {found['error']}")
    return found


def _last_lines(errors: IO[str]) -> str:
    """What a process said at its end."""
    errors.seek(0)
    return " ".join(errors.read().split()[-60:]) or "no reason given"


@contextmanager
def open_backend(folder: Path, precision: str, threads: int, device: str) -> Iterator[Backend]:
    """Start the process of the peer for which `folder` was prepared.

    Raises:
        MissingExtraError: the peer is not installed.
        ProviderError: it is asked for another device than the processor.
        RunError: it cannot open the model.
    """
    name = str(read_json(folder / PEER)["peer"])
    if device != "cpu":
        raise ProviderError(f"{name} is compared on the processor alone")
    words, environment = command(name, "serve", str(folder), precision, str(threads))
    environment |= {"OMP_NUM_THREADS": str(threads)}
    task = Task.from_json(read_json(folder / TASK))
    limits = read_limits((folder / SOURCE).read_bytes())
    reader = open_reader((folder / TOKENIZER).read_bytes(), limits, task, parallel=False)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        remote = Remote(name, task, reader, process, errors)
        try:
            _talk(remote, None)
            yield remote
        finally:
            process.kill()
            process.communicate()
