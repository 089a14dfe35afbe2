"""Rows of translation: a sentence and its translation; which pairs are not learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from distill.dataset import Notes, Split
from distill.errors import DataError
from distill.examples import Example, cell, wording
from distill.inputs import HELD_OUT, LABELLED
from distill.recipe import DataRecipe, FilterRecipe, TaskRecipe
from distill.table import Row
from distill.task import Task

Parts = dict[str, tuple[Example, ...]]
Drops = Callable[[Example], bool]


def columns(task: TaskRecipe, labelled: bool) -> list[str]:
    """The columns that rows must have; sentences without translations have one."""
    return [task.text, task.target] if labelled else [task.text]


def example(row: Row, place: str, task: TaskRecipe, labelled: bool) -> Example:
    """One row as an example; its wording is the source's alone, so that leaks are found by the source.

    Raises:
        ValueError: a cell is missing or holds no text.
    """
    text = cell(row, task.text)
    target = cell(row, task.target) if labelled else None
    return Example(text, None, "", place, wording(text, None), target)


def task_of(parts: Mapping[str, Sequence[Example]], recipe: TaskRecipe, name: str) -> Task:
    """The task as the recipe says it."""
    return Task(
        kind=recipe.kind,
        labels=(),
        text=recipe.text,
        metric=recipe.metric or "bleu",
        max_length=recipe.max_length,
        target=recipe.target,
        source_language=recipe.source_language,
        target_language=recipe.target_language,
        max_target_length=recipe.max_target_length,
    )


def before_splits(rows: tuple[Example, ...], data: DataRecipe, notes: Notes) -> tuple[Example, ...]:
    """Rows that may be held out: those with two sides.

    Raises:
        DataError: none is left.
    """
    kept = tuple(row for row in rows if not _empty(row))
    dropped = len(rows) - len(kept)
    notes.count("dropped_empty", dropped, f"{dropped} row(s) with an empty side were dropped before splitting")
    if not kept:
        raise DataError(f"all {len(rows)} rows have an empty side; expected a sentence and its translation")
    return kept


def settle(parts: Parts, data: DataRecipe, task: Task, notes: Notes) -> Parts:
    """Filter train; refuse held-out rows that cannot be measured.

    Raises:
        DataError: a held-out row has an empty side, or the filters leave nothing.
    """
    empty = [f"{row.place} ({part})" for part in HELD_OUT for row in parts[part] if _empty(row)]
    if empty:
        raise DataError(f"{len(empty)} held-out row(s) have an empty side; mend or remove them", empty)
    kept = filtered(parts["train"], data.filters, notes)
    if not kept:
        raise DataError(f"data.filters lets none of {len(parts['train'])} training pairs through")
    return {**parts, "train": kept}


def filtered(rows: Sequence[Example], recipe: FilterRecipe, notes: Notes) -> tuple[Example, ...]:
    """The pairs that are learned from; what each filter takes is counted, and warned of once."""
    notes.counts["filtered"] = {}
    left = list(rows)
    for name, what, drops in _filters(recipe):
        kept: list[Example] = []
        dropped: list[Example] = []
        for row in left:
            (dropped if drops(row) else kept).append(row)
        left = kept
        notes.counts["filtered"][name] = len(dropped)
        if dropped:
            notes.warnings.append(f"{len(dropped)} training pair(s) {what} were dropped, the first: {dropped[0].place}")
    return tuple(left)


def _filters(recipe: FilterRecipe) -> Iterator[tuple[str, str, Drops]]:
    """Name, description and question of each filter that is switched on, in order."""
    if recipe.empty:
        yield "empty", "with an empty side", _empty
    if recipe.max_words:
        yield "max_words", f"of more than {recipe.max_words} words", lambda row: _longest(row) > recipe.max_words
    if recipe.max_ratio:
        yield (
            "max_ratio",
            f"one side of which has more than {recipe.max_ratio:g} times the other's words",
            lambda row: _ratio(row, recipe.ratio_floor) > recipe.max_ratio,
        )
    if recipe.copies:
        yield "copies", "whose target is a copy of the source", _is_copy
    if recipe.duplicates:
        yield "duplicates", "that stand before in the same words", _repeats()


def _empty(row: Example) -> bool:
    """Whether a side has nothing but spaces."""
    return not row.text.strip() or not (row.target or "").strip()


def _words(row: Example) -> tuple[int, int]:
    """Words on both sides, as spaces divide them."""
    return len(row.text.split()), len((row.target or "").split())


def _longest(row: Example) -> int:
    """Words of the longer side."""
    return max(_words(row))


def _ratio(row: Example, floor: int) -> float:
    """How many times longer the longer side is; short sides count `floor` words."""
    short, long = sorted(max(words, floor, 1) for words in _words(row))
    return long / short


def _is_copy(row: Example) -> bool:
    """Whether nothing was translated: equal sides but for spaces and case."""
    return wording(row.target or "", None) == row.key


def _repeats() -> Drops:
    """A question that remembers the pairs it was asked about."""
    seen: set[tuple[str, str | None]] = set()

    def repeats(row: Example) -> bool:
        pair = (row.text, row.target)
        known = pair in seen
        seen.add(pair)
        return known

    return repeats


def note(parts: Mapping[str, Sequence[Example]], task: Task, notes: Notes) -> None:
    """Count rows, and sources that have several translations."""
    notes.counts["rows"] = {part: len(parts[part]) for part in LABELLED}
    repeated = len(parts["train"]) - len({row.key for row in parts["train"]})
    notes.counts["repeated_sources"] = repeated


def split(rows: Sequence[Example], task: Task) -> Split:
    """Examples as a split; sentences without translations have no targets."""
    targets = tuple(row.target for row in rows if row.target is not None)
    return Split(tuple(row.text for row in rows), None, (), targets or None)
