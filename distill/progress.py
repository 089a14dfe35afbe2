"""Telling people how far a long step is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[str, int, int], None]
LOG = logging.getLogger("potstill")


def silent(label: str, done: int, total: int) -> None:
    """Tell nobody."""


class Bars:
    """A `Report` that draws one bar a label on stderr, or writes a line each quarter where stderr is no terminal."""

    def __init__(self, quiet: bool = False) -> None:
        """With `quiet`, tell nobody."""
        console = Console(stderr=True)
        self._lines = not quiet and not console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._quarters: dict[str, int] = {}

    def __enter__(self) -> Bars:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bars.stop()

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `label` are finished."""
        if self._lines:
            self._line(label, done, total)
            return
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total)
        self._bars.update(self._tasks[label], completed=done, total=total)

    def _line(self, label: str, done: int, total: int) -> None:
        """One line at the start and at each quarter."""
        quarter = 4 * done // max(total, 1)
        if quarter > self._quarters.get(label, -1):
            self._quarters[label] = quarter
            LOG.info("%s: %d of %d", label, done, total)
