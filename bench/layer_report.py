"""What `compress layers` prints and writes: the layers of bundles, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.candidates import Candidate, from_bundle
from bench.layer_costs import Asked, Costs, measure_layers
from bench.layer_words import explained, removed, side_by_side
from bench.markdown import table
from bench.words import name_of
from distill.environment import environment
from distill.errors import DataError
from distill.files import write_json

Found = dict[str, Any]


def layers_of_folders(folders: Sequence[Path], asked: Asked) -> list[Costs]:
    """Measure the bundles in these folders; the first is what the others are compared with.

    Raises:
        BundleError: one of them is damaged or not a bundle.
        DataError: two of them are the same, or answer different questions.
    """
    return measure_layers(_named(folders), asked)


def _named(folders: Sequence[Path]) -> list[Candidate]:
    """Bundles by the names of their folders, with as many folders above them as it takes to tell them apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise DataError("expected different bundles, found one twice", [str(folder) for folder in folders])
    deepest = max(len(path.parts) for path in paths)
    for depth in range(1, deepest + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return [from_bundle(name, path) for name, path in zip(names, paths, strict=True)]


def as_json(costs: Sequence[Costs]) -> Found:
    """Flat rows, and what belongs to a bundle as a whole."""
    bundles = [
        {"model": each.candidate.model, "precision": each.candidate.precision, "method": each.candidate.method,
         "file_bytes": each.file_bytes, "plain_ms": each.plain_ms} for each in costs
    ]  # fmt: skip
    rows = [{key: value for key, value in asdict(row).items() if value is not None} for c in costs for row in c.rows]
    gone = removed(costs[0].rows, costs[-1].rows)
    return {"bundles": bundles, "layers": rows, "removed": gone, "environment": environment(1)}


def show(costs: Sequence[Costs], json_wanted: bool, target: Path | None) -> None:
    """Print the table, in colours on a terminal and as Markdown elsewhere, or JSON; `target` gets the JSON, too."""
    found = as_json(costs)
    if target is not None:
        write_json(target, found)
    if json_wanted:
        _say(json.dumps(found, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        print_table(costs)
    else:
        _say(markdown_of(costs))


def markdown_of(costs: Sequence[Costs]) -> str:
    """The table with what has to be said about it."""
    head, rows = side_by_side([each.rows for each in costs])
    lines = "\n".join(f"- {line}" for line in _lines(costs))
    return f"{_title(costs)}\n\n{table(head, rows)}\n\n{lines}"


def _title(costs: Sequence[Costs]) -> str:
    """Which bundles stand in each cell."""
    return " → ".join(name_of(each.candidate) for each in costs)


def _lines(costs: Sequence[Costs]) -> list[str]:
    """What was removed, and what the columns mean."""
    gone = removed(costs[0].rows, costs[-1].rows) if len(costs) > 1 else []
    plain = {name_of(each.candidate): each.plain_ms for each in costs}
    return [*(f"removed: {line}" for line in gone), *explained([each.rows for each in costs], plain)]


def print_table(costs: Sequence[Costs], width: int | None = None) -> None:
    """The same in colours, as wide as the terminal unless told otherwise."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    head, rows = side_by_side([each.rows for each in costs])
    found = Table(title=_title(costs), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in head:
        found.add_column(name, justify="left" if name == head[0] else "right", no_wrap=name == head[0])
    for row in rows[:-1]:
        found.add_row(*row)
    found.add_section()
    found.add_row(*rows[-1], style="bold")
    console = Console(width=width)
    console.print(found)
    for line in _lines(costs):
        console.print(f"- {line}", markup=False, highlight=False)


def _say(text: str) -> None:
    """Print what a program may read."""
    import click

    click.echo(text)
