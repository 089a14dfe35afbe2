"""The learning steps as folders: what each reads, what it makes, and when its old result still stands."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from distill import data, files, processes, run
from distill.errors import RecipeError
from distill.opened import Manifest, Run, model_sum
from distill.progress import Report
from distill.recipe import Recipe
from distill.recipe_file import write_yaml
from distill.sections import settings
from distill.tasks import KINDS

__all__ = [
    "STEPS",
    "Manifest",
    "Run",
    "alone",
    "label_step",
    "model_sum",
    "open_run",
    "run_label",
    "run_student",
    "run_teach",
    "student_step",
    "teach_step",
    "trained",
    "work_folder",
    "write_recipe",
]


def open_run(recipe: Recipe, folder: Path, base: Path, cache: Path, force: bool, report: Report) -> Run:
    """Read the recipe's data and open its run folder.

    Raises:
        DataError: the data does not fit the recipe.
    """
    dataset = data.read(recipe.data, recipe.task, recipe.seed, base, cache)
    return Run(recipe, dataset, folder, base, cache, force, report)


def write_recipe(opened: Run) -> None:
    """Keep the resolved recipe in the run folder."""
    resolved = settings(opened.recipe, opened.recipe.task.kind)
    files.write_text(opened.folder / "recipe.yaml", write_yaml(resolved))


def teach_step(opened: Run) -> run.Step:
    """The step that makes `teacher/`."""
    recipe, kind = opened.recipe, opened.dataset.task.kind
    source = opened.source(recipe.teacher.model, recipe.teacher.config)
    given = {"seed": recipe.seed, "teacher": settings(recipe.teacher, kind), **KINDS[kind].teacher_settings(recipe)}
    inputs = {"model": model_sum(source)} if source else {}
    return opened.step("teach", "teacher", given, {"data": opened.dataset.labelled_fingerprint, **inputs})


def run_teach(opened: Run) -> Manifest:
    """Train the teacher into `teacher/`."""
    kind = KINDS[opened.dataset.task.kind]
    return trained(opened, teach_step(opened), lambda folder: kind.make_teacher(opened, folder))


def label_step(opened: Run) -> run.Step:
    """The step that makes `signals/`."""
    given = KINDS[opened.dataset.task.kind].signal_settings(opened.recipe)
    return opened.step("label", "signals", given, {"teacher": run.output_sum(opened.made("teacher", "distill teach"))})


def run_label(opened: Run) -> Manifest:
    """Write what the teacher says into `signals/`."""
    kind = KINDS[opened.dataset.task.kind]
    on_processes = trained if kind.together else alone
    return on_processes(opened, label_step(opened), lambda folder: kind.make_signals(opened, folder))


def student_step(opened: Run) -> run.Step:
    """The step that makes `student/`."""
    recipe, name = opened.recipe, opened.dataset.task.kind
    kind = KINDS[name]
    before = kind.before_student(recipe)
    inputs = {folder: run.output_sum(opened.made(folder, f"distill {by}")) for folder, by in before.items()}
    start = opened.source(recipe.student.model, recipe.student.config)
    if start is not None:
        inputs["start"] = model_sum(start)
    given = {"seed": recipe.seed, "student": settings(recipe.student, name), **kind.student_settings(recipe)}
    return opened.step("student", "student", given, inputs)


def run_student(opened: Run) -> Manifest:
    """Build the student and distil into `student/`."""
    kind = KINDS[opened.dataset.task.kind]
    return trained(opened, student_step(opened), lambda folder: kind.make_student(opened, folder))


def work_folder(opened: Run, stage: str) -> Path:
    """Where a training keeps its checkpoints until its step is whole."""
    return opened.work(stage)


def alone(opened: Run, step: run.Step, make: Callable[[Path], Manifest]) -> Manifest:
    """Run a step on the first process while the others wait, even if it fails: a gate may, and the run goes on."""
    try:
        if processes.is_first():
            run.run_step(step, make, opened.force)
    finally:
        processes.wait()
    return run.manifest(step.folder) or {}


def trained(opened: Run, step: run.Step, make: Callable[[Path], Manifest]) -> Manifest:
    """Run a training step on all processes; the first one writes the result."""
    work = work_folder(opened, step.name)
    if processes.from_first(lambda: _begin(opened, work, step)):
        if not processes.is_first():
            with tempfile.TemporaryDirectory() as scratch:
                make(Path(scratch))
        else:
            run.run_step(step, make, opened.force)
    if processes.is_first():
        shutil.rmtree(work, ignore_errors=True)
    processes.wait()
    return run.manifest(step.folder) or {}


def _begin(opened: Run, work: Path, step: run.Step) -> bool:
    """Whether there is something to do; then the work folder is ready for it."""
    if run.may_reuse(step, opened.force):
        return False
    _claim(work, step, opened.force)
    return True


BEGUN = ("checkpoint-*", "shard-*")
"""What a work folder holds once there is something to go on from."""


def _claim(work: Path, step: run.Step, force: bool) -> None:
    """Keep a work folder if it was begun for the same fingerprint; without checkpoints, or with `force`, begin anew.

    Raises:
        RecipeError: it holds checkpoints of other settings and `force` is not given.
    """
    mark = work / "fingerprint.json"
    try:
        differing = run.differences(files.read_json(mark), step.fingerprint)
    except (OSError, ValueError):
        differing = ["fingerprint.json is missing or damaged"]
    if differing and any(found for begun in BEGUN for found in work.glob(begun)) and not force:
        raise RecipeError(
            f"{work} holds checkpoints of a {step.name} step with other settings; "
            "choose another folder with -o, or --force to begin again",
            differing,
        )
    if differing:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        files.write_json(mark, step.fingerprint)


STEPS: Mapping[str, tuple[Callable[[Run], run.Step], Callable[[Run], Manifest]]] = {
    "teach": (teach_step, run_teach),
    "label": (label_step, run_label),
    "student": (student_step, run_student),
}
