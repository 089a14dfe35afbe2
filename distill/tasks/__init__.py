"""What each kind of task does in the learning steps: one file a kind, and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.opened import Manifest, Run
from distill.recipe import Recipe
from distill.tasks import classification, translation

Settings = Callable[[Recipe], Mapping[str, Any]]
Make = Callable[[Run, Path], Manifest]


@dataclass(frozen=True)
class Kind:
    """How teachers, signals and students of one kind of task are made, and what in the recipe they depend on.

    `together`: every process asks the teacher its part, and what is answered is kept when the step is cut off.
    """

    teacher_settings: Settings
    make_teacher: Make
    signal_settings: Settings
    make_signals: Make
    before_student: Callable[[Recipe], Mapping[str, str]]
    student_settings: Settings
    make_student: Make
    together: bool


KINDS: Mapping[str, Kind] = {
    "classification": Kind(
        classification.teacher_settings,
        classification.make_teacher,
        classification.signal_settings,
        classification.make_signals,
        classification.before_student,
        classification.student_settings,
        classification.make_student,
        together=False,
    ),
    "translation": Kind(
        translation.teacher_settings,
        translation.make_teacher,
        translation.signal_settings,
        translation.make_signals,
        translation.before_student,
        translation.student_settings,
        translation.make_student,
        together=True,
    ),
}
