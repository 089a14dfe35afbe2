"""What is learned from: validated splits of labelled text, and the fingerprint of everything they were made of."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import DataError
from distill.examples import Example, choose_labels, require_known, take
from distill.inputs import HELD_OUT, LABELLED, Inputs, open_inputs
from distill.recipe import DataRecipe, SplitRecipe, TaskRecipe
from distill.sources import default_cache
from distill.splits import hold_out, leaks, near_duplicates
from distill.task import Task


@dataclass(frozen=True)
class Split:
    """Rows in order: texts, second texts of pairs, and labels as places in `Task.labels` (none where unlabelled)."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[int, ...]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.texts)

    @property
    def ids(self) -> tuple[str, ...]:
        """A name for each row that follows its text alone: 16 hex digits of sha256(text, NUL, pair)."""
        pairs = self.pairs or ("",) * len(self)
        return tuple(
            hashlib.sha256(f"{text}\0{pair}".encode()).hexdigest()[:16]
            for text, pair in zip(self.texts, pairs, strict=True)
        )


@dataclass(frozen=True)
class Dataset:
    """The splits `train`, `validation`, `test` and perhaps `unlabelled`; what was noticed while making them."""

    task: Task
    splits: Mapping[str, Split]
    fingerprint: str
    notes: Mapping[str, Any]
    warnings: tuple[str, ...]


@dataclass
class _Notes:
    """Counts and warnings, gathered on the way."""

    counts: dict[str, Any]
    warnings: list[str]

    def count(self, name: str, number: int, warning: str) -> None:
        """Keep a count; warn if there is anything to warn of."""
        self.counts[name] = number
        if number:
            self.warnings.append(warning)


def read(data: DataRecipe, task: TaskRecipe, seed: int, base: Path, cache: Path | None = None) -> Dataset:
    """Read what the recipe names, check it, and make the splits it lacks.

    Relative paths start at `base`; wheels are kept in `cache`.

    Raises:
        RecipeError: a source cannot be found, fetched or trusted.
        DataError: what was read does not fit the task.
        RunError: a file changed while it was read.
    """
    inputs = open_inputs(data, base, cache or default_cache())
    notes = _Notes({"skipped_rows": {}}, [])
    parts = {part: _take(inputs, part, data, task, notes) for part in inputs.tables}
    unlabelled = parts.pop("unlabelled", None)
    labels = choose_labels(parts["train"], task.labels, inputs.tables["train"].name)
    parts = _completed(parts, data.split, seed, notes)
    for part in HELD_OUT:
        require_known(part, parts[part], labels)
    _note_leaks(parts, data.allow_leakage, notes)
    _note_rows(parts, labels, notes)
    if unlabelled is not None:
        parts["unlabelled"] = _unseen(unlabelled, parts, notes)
    return _dataset(parts, _task(task, labels), inputs, notes)


def _take(inputs: Inputs, part: str, data: DataRecipe, task: TaskRecipe, notes: _Notes) -> tuple[Example, ...]:
    """The examples of one table; broken rows are counted if the recipe says so, else refused."""
    labelled = part in LABELLED
    table = inputs.tables[part]
    examples = take(table, task, data.where if labelled else {}, labelled)
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


def _completed(
    parts: Mapping[str, tuple[Example, ...]], shares: SplitRecipe, seed: int, notes: _Notes
) -> dict[str, tuple[Example, ...]]:
    """Train, validation and test: those that were not given are made from train."""
    missing = [part for part in ("test", "validation") if part not in parts]
    notes.counts["made_splits"] = sorted(missing)
    if not missing:
        return {part: parts[part] for part in LABELLED}
    rows = tuple({(row.text, row.pair, row.label): row for row in reversed(parts["train"])}.values())[::-1]
    dropped = len(parts["train"]) - len(rows)
    notes.count(
        "dropped_duplicates",
        dropped,
        f"{dropped} row(s) that repeat another word by word were dropped before splitting",
    )
    made = dict(parts) | _made(rows, missing, shares, seed)
    return {part: made[part] for part in LABELLED}


def _made(
    rows: tuple[Example, ...], missing: Sequence[str], shares: SplitRecipe, seed: int
) -> dict[str, tuple[Example, ...]]:
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
    made: dict[str, tuple[Example, ...]] = {}
    for part, share in wanted.items():
        held = hold_out(groups[left], labels[left], share * len(rows) / len(left), seed)
        made[part] = tuple(rows[place] for place in left[held])
        left = left[~held]
    return {**made, "train": tuple(rows[place] for place in left)}


def _note_leaks(parts: Mapping[str, Sequence[Example]], allowed: bool, notes: _Notes) -> None:
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


def _note_rows(parts: Mapping[str, Sequence[Example]], labels: Sequence[str], notes: _Notes) -> None:
    """Count what is odd about the rows themselves."""
    everything = [row for part in LABELLED for row in parts[part]]
    first = {row.key: row for row in reversed(everything)}
    torn = [row for row in everything if first[row.key].label != row.label]
    example = f"; the first: {torn[0].place} against {first[torn[0].key].place}" if torn else ""
    notes.count("conflicting_labels", len(torn), f"{len(torn)} row(s) repeat a text under another label{example}")
    repeated = len(parts["train"]) - len({row.key for row in parts["train"]})
    notes.count("duplicates", repeated, f"{repeated} row(s) of train repeat the wording of another")
    empty = sum(not row.key.strip("\0") for row in everything)
    notes.count("empty_texts", empty, f"{empty} row(s) have an empty text")
    _note_labels(parts, labels, notes)


def _note_labels(parts: Mapping[str, Sequence[Example]], labels: Sequence[str], notes: _Notes) -> None:
    """Count rows a label, and warn of labels that cannot be learned or measured."""
    counts = {part: Counter(row.label for row in parts[part]) for part in LABELLED}
    notes.counts["rows"] = {part: len(parts[part]) for part in LABELLED}
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


def _unseen(rows: Sequence[Example], parts: Mapping[str, Sequence[Example]], notes: _Notes) -> tuple[Example, ...]:
    """Unlabelled rows that are not held out."""
    held_out = {row.key for part in HELD_OUT for row in parts[part]}
    kept = tuple(row for row in rows if row.key not in held_out)
    dropped = len(rows) - len(kept)
    notes.count(
        "unlabelled_dropped", dropped, f"{dropped} unlabelled row(s) were dropped: they stand in validation or test"
    )
    notes.counts["rows"]["unlabelled"] = len(kept)
    return kept


def _task(recipe: TaskRecipe, labels: tuple[str, ...]) -> Task:
    """The task with its labels known."""
    return Task(
        kind=recipe.kind,
        labels=labels,
        text=recipe.text,
        pair=recipe.pair,
        label=recipe.label,
        metric=recipe.metric,
        max_length=recipe.max_length,
    )


def _dataset(parts: Mapping[str, Sequence[Example]], task: Task, inputs: Inputs, notes: _Notes) -> Dataset:
    """Everything in its final form."""
    places = {label: place for place, label in enumerate(task.labels)}
    splits = {part: _split(rows, places, task.pair is not None) for part, rows in parts.items()}
    notes.counts["sources"] = {
        part: {"name": table.name, "sha256": inputs.sums.get(part)} for part, table in inputs.tables.items()
    }
    return Dataset(task, splits, _fingerprint(task, splits, inputs.sums), notes.counts, tuple(notes.warnings))


def _split(rows: Sequence[Example], places: Mapping[str, int], paired: bool) -> Split:
    """Examples as a split; unlabelled ones carry no labels."""
    pairs = tuple(row.pair or "" for row in rows) if paired else None
    return Split(tuple(row.text for row in rows), pairs, tuple(places[row.label] for row in rows if row.label))


def _fingerprint(task: Task, splits: Mapping[str, Split], sums: Mapping[str, str]) -> str:
    """sha256 over the task, every row and every source file: what was made from other data has another one."""
    digest = hashlib.sha256()
    for value in (task.to_json(), dict(sums)):
        digest.update(json.dumps(value, sort_keys=True).encode())
    for name, split in splits.items():
        digest.update(json.dumps([name, split.ids, split.labels]).encode())
    return digest.hexdigest()
