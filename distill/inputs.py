"""The tables a recipe names, read from where they are, and proof that nobody wrote to them meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill.errors import DataError, RunError
from distill.files import sha256
from distill.readers import read_table
from distill.recipe import DataRecipe
from distill.sources import Hub, resolve
from distill.table import Table

HELD_OUT = ("validation", "test")
LABELLED = ("train", *HELD_OUT)


@dataclass(frozen=True)
class Inputs:
    """A table for each part that the recipe gives (`train` at least), and the sha256 of each file."""

    tables: Mapping[str, Table]
    sums: Mapping[str, str]


def open_inputs(data: DataRecipe, base: Path, cache: Path) -> Inputs:
    """Find, hash and read every source of a recipe.

    Raises:
        RecipeError: a source cannot be found or fetched.
        DataError: a file cannot be read.
        RunError: a file changed while it was read.
    """
    named = {
        "train": data.source or data.train,
        "validation": data.validation,
        "test": data.test,
        "unlabelled": data.unlabelled,
    }
    places = {part: resolve(source, base, cache) for part, source in named.items() if source}
    files = {part: place for part, place in places.items() if isinstance(place, Path)}
    sums = {part: _sum(path) for part, path in files.items()}
    read = {path: read_table(path, data.columns or ()) for path in set(files.values())}
    tables = {part: read[path] for part, path in files.items()}
    changed = [str(path) for part, path in files.items() if _sum(path) != sums[part]]
    if changed:
        raise RunError("input files changed while they were read; run again when nobody writes to them", changed)
    for part, place in places.items():
        if isinstance(place, Hub):
            tables |= _from_hub(part, place, whole=part == "train" and data.source is not None)
    order = [part for part in (*LABELLED, "unlabelled") if part in tables]
    return Inputs({part: tables[part] for part in order}, sums)


def _sum(path: Path) -> str:
    """The sha256 of a data file."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected one file of rows")
    try:
        return sha256(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _from_hub(part: str, hub: Hub, whole: bool) -> dict[str, Table]:
    """The split of a hub data set that plays `part`; as `whole` source, every split it has."""
    # `datasets` takes seconds to import, and most recipes name files.
    from distill.hub import pick, read_hub

    splits = read_hub(hub)
    found = {part: pick(splits, part, hub)}
    for name in HELD_OUT if whole else ():
        try:
            found[name] = pick(splits, name, hub)
        except DataError:
            continue  # made from train, as for any source without this split
    return found
