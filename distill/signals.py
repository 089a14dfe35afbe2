"""What the teacher says: its logits on disk, found again by the example's id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from distill import files
from distill.errors import DataError

TENSORS = "logits.safetensors"
ABOUT = "signals.json"


@dataclass(frozen=True)
class Signals:
    """A teacher's logits.

    `ids` are example ids (16 hex digits); `logits` is float32 `(examples, labels)`, its columns in the order of
    `labels`; no temperature is applied; `teacher` is the sha256 of the teacher that spoke.
    """

    ids: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: tuple[str, ...]
    teacher: str

    def of(self, ids: Sequence[str], labels: Sequence[str]) -> NDArray[np.float32]:
        """The logits of these examples, columns in the order of `labels`: `(len(ids), len(labels))`.

        Raises:
            DataError: examples or labels about which the teacher was not asked.
        """
        missing = [label for label in labels if label not in self.labels]
        if missing or len(labels) != len(self.labels):
            raise DataError(
                f"the teacher answers {', '.join(self.labels)}; the task asks for {', '.join(labels)}", missing
            )
        rows = {example: row for row, example in enumerate(self.ids)}
        unknown = [example for example in ids if example not in rows]
        if unknown:
            raise DataError(f"{len(unknown)} examples have no signals: label them again with this data", unknown)
        columns = [self.labels.index(label) for label in labels]
        return np.ascontiguousarray(self.logits[np.asarray([rows[i] for i in ids])][:, columns])


def write(signals: Signals, folder: Path) -> None:
    """Write signals into `folder`."""
    ids = np.array([int(example, 16) for example in signals.ids], dtype=np.uint64)
    save_file({"ids": ids, "logits": signals.logits.astype(np.float32)}, folder / TENSORS)
    files.write_json(folder / ABOUT, {"format": 1, "labels": list(signals.labels), "teacher": signals.teacher})


def read(folder: Path) -> Signals:
    """Read what `write` wrote.

    Raises:
        DataError: the folder does not hold whole signals.
    """
    try:
        about = files.read_json(folder / ABOUT)
        tensors = load_file(folder / TENSORS)
        ids, logits = tensors["ids"], tensors["logits"]
        labels = tuple(about["labels"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder} holds no readable signals: {error}; label again") from error
    problem = _problem(ids, logits, labels)
    if problem:
        raise DataError(f"{folder} holds {problem}; label again")
    return Signals(tuple(f"{example:016x}" for example in ids), logits, labels, str(about.get("teacher", "")))


def _problem(ids: NDArray[np.generic], logits: NDArray[np.generic], labels: tuple[str, ...]) -> str | None:
    """What does not fit between arrays and labels."""
    if ids.dtype != np.uint64 or ids.ndim != 1 or logits.dtype != np.float32:
        return f"ids of {ids.dtype} and logits of {logits.dtype}, not a list of uint64 and a table of float32"
    if logits.shape != (len(ids), len(labels)):
        return f"{logits.shape} logits for {len(ids)} examples and {len(labels)} labels"
    return None if np.isfinite(logits).all() else "logits that are NaN or infinite"
