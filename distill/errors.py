"""Every error potstill raises on purpose, split by what the reader can do about it.

PotstillError                   1    something failed
├── RunError                    1    the run could not go on: folder in use, disk full, input changed, NaN loss
├── RecipeError                 2    mend the recipe, or choose another folder
├── DataError                   2    mend the data file
├── CheckpointError             2    choose another model, or convert it
├── ProviderError               2    choose another execution provider
├── MissingExtraError           2    install the extra that is named
├── GateError                   3    the small model lost more quality than the recipe allows
├── BundleError                 4    the bundle is damaged, or not a bundle
└── InterruptedRunError       130    asked to stop; the same command goes on
"""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 10


class PotstillError(Exception):
    """Something failed; `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        """Keep the one-line `message` and all `problems` of its kind; the first ten are shown."""
        self.message = message
        self.problems = tuple(problems)
        super().__init__(message, self.problems)

    def __str__(self) -> str:
        """The message, then one indented line a problem."""
        shown = [f"  - {problem}" for problem in self.problems[:SHOWN]]
        hidden = len(self.problems) - len(shown)
        more = [f"  (and {hidden} more)"] if hidden > 0 else []
        return "\n".join([self.message, *shown, *more])


class RunError(PotstillError):
    """The run could not go on."""


class RecipeError(PotstillError):
    """The recipe, an option or a folder does not fit."""

    exit_code = 2


class DataError(PotstillError):
    """A data file does not fit the task."""

    exit_code = 2


class CheckpointError(PotstillError):
    """A model folder cannot be used."""

    exit_code = 2


class ProviderError(PotstillError):
    """The execution provider that was asked for is not there."""

    exit_code = 2


class MissingExtraError(PotstillError):
    """An optional part of potstill is not installed."""

    exit_code = 2


class GateError(PotstillError):
    """The compressed model does not hold the quality that was asked for."""

    exit_code = 3


class BundleError(PotstillError):
    """A bundle is damaged, incomplete, or not a bundle."""

    exit_code = 4


class InterruptedRunError(PotstillError):
    """The run was asked to stop and saved what it had."""

    exit_code = 130
