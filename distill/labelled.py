"""Rows of classification: a text or a pair with its label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from distill.dataset import Notes, Split
from distill.examples import Example, cell, choose_labels, require_known, wording
from distill.inputs import HELD_OUT, LABELLED
from distill.recipe import DataRecipe, TaskRecipe
from distill.table import Row
from distill.task import Task

Parts = dict[str, tuple[Example, ...]]


def columns(task: TaskRecipe, labelled: bool) -> list[str]:
    """The columns that rows must have."""
    return [task.text, *filter(None, [task.pair]), *([task.label] if labelled else [])]


def example(row: Row, place: str, task: TaskRecipe, labelled: bool) -> Example:
    """One row as an example.

    Raises:
        ValueError: a cell is missing or holds no text.
    """
    text = cell(row, task.text)
    pair = cell(row, task.pair) if task.pair else None
    label = cell(row, task.label).strip() if labelled else ""
    if labelled and not label:
        raise ValueError(f"the label in column {task.label!r} is missing")
    return Example(text, pair, task.label_names.get(label, label), place, wording(text, pair))


def task_of(parts: Mapping[str, Sequence[Example]], recipe: TaskRecipe, name: str) -> Task:
    """The task, its labels as the recipe lists them or as train has them.

    Raises:
        DataError: labels that cannot be learned.
    """
    return Task(
        kind=recipe.kind,
        labels=choose_labels(parts["train"], recipe.labels, name),
        text=recipe.text,
        pair=recipe.pair,
        label=recipe.label,
        metric=recipe.metric or "accuracy",
        max_length=recipe.max_length,
    )


def before_splits(rows: tuple[Example, ...], data: DataRecipe, notes: Notes) -> tuple[Example, ...]:
    """Every row may be held out."""
    return rows


def settle(parts: Parts, data: DataRecipe, task: Task, notes: Notes) -> Parts:
    """Refuse held-out rows with labels that train lacks.

    Raises:
        DataError: naming each such label.
    """
    for part in HELD_OUT:
        require_known(part, parts[part], task.labels)
    return parts


def note(parts: Mapping[str, Sequence[Example]], task: Task, notes: Notes) -> None:
    """Count what is odd about the rows themselves."""
    everything = [row for part in LABELLED for row in parts[part]]
    first = {row.key: row for row in reversed(everything)}
    torn = [row for row in everything if first[row.key].label != row.label]
    shown = f"; the first: {torn[0].place} against {first[torn[0].key].place}" if torn else ""
    notes.count("conflicting_labels", len(torn), f"{len(torn)} row(s) repeat a text under another label{shown}")
    repeated = len(parts["train"]) - len({row.key for row in parts["train"]})
    notes.count("duplicates", repeated, f"{repeated} row(s) of train repeat the wording of another")
    empty = sum(not row.key.strip("\0") for row in everything)
    notes.count("empty_texts", empty, f"{empty} row(s) have an empty text")
    notes.counts["rows"] = {part: len(parts[part]) for part in LABELLED}
    _note_labels(parts, task.labels, notes)


def _note_labels(parts: Mapping[str, Sequence[Example]], labels: Sequence[str], notes: Notes) -> None:
    """Count rows a label, and warn of labels that cannot be learned or measured."""
    counts = {part: Counter(row.label for row in parts[part]) for part in LABELLED}
    notes.counts["labels"] = {part: {label: counts[part][label] for label in labels} for part in LABELLED}
    few = [f"{label!r} ({counts['train'][label]})" for label in labels if counts["train"][label] < 2]
    if few:
        notes.warnings.append(
            f"labels with fewer than two rows in train, which can hardly be learned: {', '.join(few)}"
        )
    for part in HELD_OUT:
        unseen = [repr(label) for label in labels if not counts[part][label] and counts["train"][label]]
        if unseen:
            notes.warnings.append(f"the {part} split has no row with these labels: {', '.join(unseen)}")


def split(rows: Sequence[Example], task: Task) -> Split:
    """Examples as a split; unlabelled ones carry no labels."""
    places = {label: place for place, label in enumerate(task.labels)}
    pairs = tuple(row.pair or "" for row in rows) if task.pair is not None else None
    return Split(tuple(row.text for row in rows), pairs, tuple(places[row.label] for row in rows if row.label))
