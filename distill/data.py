"""Reading what is learned from: checked rows, the splits they lack, and the fingerprint of all they were made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill import labelled, parallel
from distill.dataset import Dataset, Notes, Split
from distill.errors import DataError
from distill.examples import Example, Examples, take
from distill.inputs import HELD_OUT, LABELLED, Inputs, open_inputs
from distill.recipe import DataRecipe, SplitRecipe, TaskRecipe
from distill.sources import default_cache
from distill.splits import hold_out, leaks, near_duplicates, resembling
from distill.table import Row, Table
from distill.task import Task

__all__ = ["Dataset", "Split", "examples_of", "read"]

Parts = dict[str, tuple[Example, ...]]


@dataclass(frozen=True)
class Form:
    """What rows of one kind of task are like; `distill/labelled.py` says what each function does."""

    columns: Callable[[TaskRecipe, bool], list[str]]
    example: Callable[[Row, str, TaskRecipe, bool], Example]
    task_of: Callable[[Mapping[str, Sequence[Example]], TaskRecipe, str], Task]
    before_splits: Callable[[tuple[Example, ...], DataRecipe, Notes], tuple[Example, ...]]
    settle: Callable[[Parts, DataRecipe, Task, Notes], Parts]
    note: Callable[[Mapping[str, Sequence[Example]], Task, Notes], None]
    split: Callable[[Sequence[Example], Task], Split]


FORMS: Mapping[str, Form] = {
    "classification": Form(
        labelled.columns,
        labelled.example,
        labelled.task_of,
        labelled.before_splits,
        labelled.settle,
        labelled.note,
        labelled.split,
    ),
    "translation": Form(
        parallel.columns,
        parallel.example,
        parallel.task_of,
        parallel.before_splits,
        parallel.settle,
        parallel.note,
        parallel.split,
    ),
}


def read(data: DataRecipe, task: TaskRecipe, seed: int, base: Path, cache: Path | None = None) -> Dataset:
    """Read what the recipe names, check it, and make the splits it lacks.

    Relative paths start at `base`; wheels are kept in `cache`.

    Raises:
        RecipeError: a source cannot be found, fetched or trusted.
        DataError: what was read does not fit the task.
        RunError: a file changed while it was read.
    """
    inputs = open_inputs(data, base, cache or default_cache())
    notes, form = Notes({"skipped_rows": {}}), FORMS[task.kind]
    parts: Parts = {part: _take(inputs, part, data, task, notes) for part in inputs.tables}
    unlabelled = parts.pop("unlabelled", None)
    settled = form.task_of(parts, task, inputs.tables["train"].name)
    parts = form.settle(_completed(parts, data, form, seed, notes), data, settled, notes)
    _note_leaks(parts, data.allow_leakage, notes)
    form.note(parts, settled, notes)
    if unlabelled is not None:
        parts["unlabelled"] = _unseen(unlabelled, parts, notes)
    return _dataset(parts, settled, form, inputs, notes)


def examples_of(table: Table, task: TaskRecipe, where: Mapping[str, str], labelled: bool = True) -> Examples:
    """A table's rows as examples of a task, those that do not fit named.

    Raises:
        DataError: a column is missing, or no row is left.
    """
    form = FORMS[task.kind]
    columns = form.columns(task, labelled)
    return take(table, columns, where, lambda row, place: form.example(row, place, task, labelled))


def _take(inputs: Inputs, part: str, data: DataRecipe, task: TaskRecipe, notes: Notes) -> tuple[Example, ...]:
    """The examples of one table; broken rows are counted if the recipe says so, else refused."""
    labelled = part in LABELLED
    table = inputs.tables[part] if labelled else _of_one_column(inputs.tables[part], task.text)
    examples = examples_of(table, task, data.where if labelled else {}, labelled)
    broken = examples.problems
    if broken and not data.skip_bad_rows:
        raise DataError(
            f"{len(broken)} row(s) of {table.name} cannot be used; mend them, or set data.skip_bad_rows",
            broken,
        )
    if broken:
        notes.counts["skipped_rows"][part] = len(broken)
        notes.warnings.append(f"{len(broken)} broken row(s) of {table.name} were skipped, the first: {broken[0]}")
    if not examples.rows:
        raise DataError(f"{table.name} holds no row that can be used", broken)
    return examples.rows


def _of_one_column(table: Table, name: str) -> Table:
    """A table whose only column, if it has one only, is called `name`: plain text needs no header for this."""
    if len(table.columns) != 1 or name in table.names():
        return table
    rows = tuple(Row(row.line, {name: row.cell(table.columns[0])}) for row in table.rows)
    return Table(table.name, (name,), rows, table.problems, table.binary)


def _completed(parts: Parts, data: DataRecipe, form: Form, seed: int, notes: Notes) -> Parts:
    """Train, validation and test: those that were not given are made from train."""
    missing = [part for part in ("test", "validation") if part not in parts]
    notes.counts["made_splits"] = sorted(missing)
    if not missing:
        return {part: parts[part] for part in LABELLED}
    whole = form.before_splits(parts["train"], data, notes)
    rows = tuple({(row.text, row.pair, row.label, row.target): row for row in reversed(whole)}.values())[::-1]
    dropped = len(whole) - len(rows)
    notes.count(
        "dropped_duplicates",
        dropped,
        f"{dropped} row(s) that repeat another word by word were dropped before splitting",
    )
    made = parts | _made(rows, missing, data.split, seed)
    return {part: made[part] for part in LABELLED}


def _made(rows: tuple[Example, ...], missing: Sequence[str], shares: SplitRecipe, seed: int) -> Parts:
    """Divide rows so that near-duplicates stay together and labels keep their shares."""
    wanted: dict[str, float] = {part: getattr(shares, part) for part in missing}
    if min(wanted.values()) == 0 or sum(wanted.values()) >= 1:
        sizes = ", ".join(f"{part}: {share}" for part, share in wanted.items())
        raise DataError(
            f"data.split ({sizes}) leaves a split empty; expected shares above 0 that sum up to less than 1"
        )
    groups = near_duplicates([row.key.replace("\0", " ") for row in rows])
    labels = np.unique([row.label for row in rows], return_inverse=True)[1].astype(np.int64)
    left = np.arange(len(rows))
    made: Parts = {}
    for part, share in wanted.items():
        held = hold_out(groups[left], labels[left], share * len(rows) / len(left), seed)
        made[part] = tuple(rows[place] for place in left[held])
        left = left[~held]
    return {**made, "train": tuple(rows[place] for place in left)}


def _note_leaks(parts: Mapping[str, Sequence[Example]], allowed: bool, notes: Notes) -> None:
    """Count held-out rows that the model may have learned by heart; refuse them unless the recipe allows it."""
    found = leaks(parts)
    rows = [row for split in found.values() for row in split]
    message = f"{len(rows)} held-out row(s) also stand, with the same wording, in a split before"
    if rows and not allowed:
        raise DataError(
            f"{message}; remove them, or set data.allow_leakage to go on with scores that are too good", rows
        )
    notes.count(
        "leakage",
        len(rows),
        f"{message} (data.allow_leakage): scores are too good; the first: {rows[0] if rows else ''}",
    )
    notes.counts["leakage_by_split"] = {split: len(found[split]) for split in HELD_OUT}


def _unseen(rows: Sequence[Example], parts: Mapping[str, Sequence[Example]], notes: Notes) -> tuple[Example, ...]:
    """Unlabelled rows that are not held out, nor nearly so: what a teacher says of these, a student would know."""
    held_out = [row.key.replace("\0", " ") for part in HELD_OUT for row in parts[part]]
    near = resembling([row.key.replace("\0", " ") for row in rows], held_out)
    kept = tuple(row for row, drop in zip(rows, near, strict=True) if not drop)
    dropped = len(rows) - len(kept)
    notes.count(
        "unlabelled_dropped",
        dropped,
        f"{dropped} unlabelled row(s) were dropped: they, or near-duplicates of them, stand in validation or test",
    )
    notes.counts["rows"]["unlabelled"] = len(kept)
    return kept


def _dataset(parts: Parts, task: Task, form: Form, inputs: Inputs, notes: Notes) -> Dataset:
    """Everything in its final form."""
    splits = {part: form.split(rows, task) for part, rows in parts.items()}
    notes.counts["sources"] = {
        part: {"name": table.name, "sha256": inputs.sums.get(part)} for part, table in inputs.tables.items()
    }
    every, labelled = (_fingerprint(task, splits, inputs.sums, left_out) for left_out in (None, "unlabelled"))
    return Dataset(task, splits, every, notes.counts, tuple(notes.warnings), labelled)


def _fingerprint(task: Task, splits: Mapping[str, Split], sums: Mapping[str, str], left_out: str | None) -> str:
    """sha256 over the task, every row and every source file: what was made from other data has another one."""
    digest = hashlib.sha256()
    told = ({"pair": None} if task.kind == "classification" else {}) | task.to_json()
    for value in (told, {name: value for name, value in sums.items() if name != left_out}):
        digest.update(json.dumps(value, sort_keys=True).encode())
    for name, split in splits.items():
        if name != left_out:
            digest.update(json.dumps([name, split.ids, split.labels]).encode())
    return digest.hexdigest()
