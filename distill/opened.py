"""An opened run: the recipe, the data it names, and the folder its steps write to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import files, run
from distill.checkpoint import fetch
from distill.dataset import Dataset
from distill.errors import RunError
from distill.progress import Report, silent
from distill.recipe import Recipe

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A recipe, the data it names, and the folder its steps write to. Paths in the recipe start at `base`."""

    recipe: Recipe
    dataset: Dataset
    folder: Path
    base: Path
    cache: Path
    force: bool = False
    report: Report = silent

    def step(self, name: str, folder: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> run.Step:
        """One step of this run; every step depends on the data."""
        return run.Step(name, self.folder / folder, settings, {"data": self.dataset.fingerprint, **inputs})

    def made(self, folder: str, by: str) -> Manifest:
        """The manifest of a step that must be finished by now.

        Raises:
            RunError: it is not.
        """
        found = run.manifest(self.folder / folder)
        if found is None:
            raise RunError(f"{self.folder / folder} is not there or not finished; run `{by}` first")
        return found

    def work(self, stage: str) -> Path:
        """Where a step keeps what it can go on from until it is whole."""
        return (self.folder / f".work-{stage}").resolve()

    def source(self, *choices: object) -> Path | None:
        """The folder or file of the first choice that names one; a config's keys name none.

        Raises:
            RecipeError: it cannot be found or fetched.
        """
        named = next((choice for choice in choices if isinstance(choice, str)), None)
        return fetch(named, self.base, self.cache) if named is not None else None


def model_sum(source: Path) -> str:
    """One sha256 for all that a model's folder or config file holds."""
    if source.is_file():
        return files.sha256(source)
    return run.output_sum({"files": files.hash_files(source)})
