"""What is learned from, as nouns: splits of rows, and everything that was noticed while they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill.task import Task


@dataclass(frozen=True)
class Split:
    """Rows in order: texts, second texts of pairs, and labels as places in `Task.labels` (none where unlabelled).

    `targets` are the translations of the texts; None for classification and where there are none.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[int, ...]
    targets: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """How many rows."""
        return len(self.texts)

    @property
    def ids(self) -> tuple[str, ...]:
        """A name for each row that follows its text alone: 16 hex digits of sha256(text, NUL, pair or target)."""
        seconds = self.pairs or self.targets or ("",) * len(self)
        return tuple(
            hashlib.sha256(f"{text}\0{second}".encode()).hexdigest()[:16]
            for text, second in zip(self.texts, seconds, strict=True)
        )


@dataclass(frozen=True)
class Dataset:
    """The splits `train`, `validation`, `test` and perhaps `unlabelled`; what was noticed while making them.

    `labelled_fingerprint` leaves the unlabelled rows out, of which a teacher learns nothing.
    """

    task: Task
    splits: Mapping[str, Split]
    fingerprint: str
    notes: Mapping[str, Any]
    warnings: tuple[str, ...]
    labelled_fingerprint: str = ""


@dataclass
class Notes:
    """Counts and warnings, gathered on the way."""

    counts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def count(self, name: str, number: int, warning: str) -> None:
        """Keep a count; warn if there is anything to warn of."""
        self.counts[name] = number
        if number:
            self.warnings.append(warning)
