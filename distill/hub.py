"""Data sets of the hub, read through `datasets`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import datasets

from distill.errors import DataError
from distill.sources import Hub
from distill.table import Row, Table, named_labels

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test",),
    "unlabelled": ("unsupervised", "unlabelled", "unlabeled", "train"),
}
"""What hub data sets call each split."""


def read_hub(hub: Hub) -> dict[str, Table]:
    """Every split of a hub data set, by the hub's own names.

    Raises:
        DataError: no such data set, no such configuration, not allowed, or no network.
    """
    try:
        with _quiet():
            loaded = datasets.load_dataset(hub.name, hub.config)
    except Exception as error:  # the library, its network stack and its file systems have no common error
        raise DataError(hub_problem("data set", hub, error)) from error
    return {str(split): _table(f"{hub} {split}", rows) for split, rows in loaded.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a network the hub's client logs every retry: the one error at the end is enough."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def hub_problem(what: str, hub: Hub, error: Exception) -> str:
    """One line for whatever went wrong on the way to the hub, and what to do."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return (
        f"{hub}: neither a file nor a hub {what} that can be fetched ({type(error).__name__}: {first}); "
        "check the name and the network, or give the path of a file"
    )


def pick(splits: Mapping[str, Table], role: str, hub: Hub) -> Table:
    """The split that plays `role`.

    Raises:
        DataError: the data set has none.
    """
    found = [splits[name] for name in SPLITS[role] if name in splits]
    if not found:
        raise DataError(f"{hub} has no {role} split; it has {', '.join(splits)}")
    return found[0]


def _table(name: str, rows: datasets.Dataset) -> Table:
    """One split as a table, its labels by name."""
    features = rows.features
    names = {column: kind.names for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    cells = [Row(number, row) for number, row in enumerate(rows.to_list(), start=1)]
    return named_labels(Table(name, tuple(features), tuple(cells), binary=True), names)
