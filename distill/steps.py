"""The learning steps as folders: what each reads, what it makes, and when its old result still stands."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from distill import data, files, run, signals
from distill.checkpoint import fetch, load_model, load_tokenizer, save
from distill.errors import RunError
from distill.label import label
from distill.models import build_student
from distill.progress import Report, silent
from distill.recipe import DistillationRecipe, Recipe
from distill.student import distil
from distill.teach import teach

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A recipe, the data it names, and the folder its steps write to. Paths in the recipe start at `base`."""

    recipe: Recipe
    dataset: data.Dataset
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


def open_run(recipe: Recipe, folder: Path, base: Path, cache: Path, force: bool, report: Report) -> Run:
    """Read the recipe's data and open its run folder.

    Raises:
        DataError: the data does not fit the recipe.
    """
    dataset = data.read(recipe.data, recipe.task, recipe.seed, base, cache)
    return Run(recipe, dataset, folder, base, cache, force, report)


def write_recipe(opened: Run) -> None:
    """Keep the resolved recipe in the run folder (JSON is YAML too)."""
    files.write_text(opened.folder / "recipe.yaml", json.dumps(opened.recipe.model_dump(mode="json"), indent=2) + "\n")


def teach_step(opened: Run) -> run.Step:
    """The step that makes `teacher/`."""
    recipe = opened.recipe
    folder = fetch(recipe.teacher.model, opened.base, opened.cache)
    settings = {"seed": recipe.seed, "teacher": recipe.teacher.model_dump(mode="json")}
    return opened.step("teach", "teacher", settings, {"model": model_sum(folder)})


def run_teach(opened: Run) -> Manifest:
    """Fine-tune the teacher into `teacher/`."""
    recipe, dataset = opened.recipe, opened.dataset
    source = fetch(recipe.teacher.model, opened.base, opened.cache)

    def make(folder: Path) -> Manifest:
        model, tokenizer = load_model(source, dataset.task, recipe.seed), load_tokenizer(source)
        training = recipe.teacher.training
        work = work_folder(opened, "teach")
        result = teach(model, tokenizer, dataset, training, work, recipe.seed, opened.report) if training else {}
        save(model, tokenizer, dataset.task, folder)
        return result

    return trained(opened, teach_step(opened), make)


def label_step(opened: Run) -> run.Step:
    """The step that makes `signals/`."""
    return opened.step("label", "signals", {}, {"teacher": run.output_sum(opened.made("teacher", "distill teach"))})


def run_label(opened: Run) -> Manifest:
    """Write the teacher's logits into `signals/`."""
    teacher = opened.folder / "teacher"

    def make(folder: Path) -> Manifest:
        model, tokenizer = load_model(teacher), load_tokenizer(teacher)
        weights = files.sha256(teacher / "model.safetensors")
        found = label(model, tokenizer, opened.dataset, weights, report=opened.report)
        signals.write(found, folder)
        return {"examples": len(found.ids)}

    return run.run_step(label_step(opened), make, opened.force)


def student_step(opened: Run) -> run.Step:
    """The step that makes `student/`."""
    recipe = opened.recipe
    inputs = {name: run.output_sum(opened.made(name, f"distill {by}")) for name, by in _BEFORE_STUDENT}
    start = _start(opened)
    if start is not None:
        inputs["start"] = model_sum(start)
    return opened.step(
        "student", "student", {"seed": recipe.seed, "student": recipe.student.model_dump(mode="json")}, inputs
    )


_BEFORE_STUDENT = (("teacher", "teach"), ("signals", "label"))


def run_student(opened: Run) -> Manifest:
    """Build the student and distil into `student/`."""
    recipe, dataset = opened.recipe, opened.dataset

    def make(folder: Path) -> Manifest:
        teacher = opened.folder / "teacher"
        start = _start(opened)
        model = build_student(recipe.student, load_model(teacher), dataset.task, start, recipe.seed)
        tokenizer = load_tokenizer(start if recipe.student.model is not None and start else teacher)
        found = signals.read(opened.folder / "signals")
        work = work_folder(opened, "student")
        result = distil(model, tokenizer, dataset, found, recipe.student, work, recipe.seed, report=opened.report)
        save(model, tokenizer, dataset.task, folder)
        return result

    return trained(opened, student_step(opened), make)


def _start(opened: Run) -> Path | None:
    """Where the student starts, if not from the teacher."""
    source = opened.recipe.student.model or opened.recipe.student.config
    return fetch(source, opened.base, opened.cache) if source else None


def recover(opened: Run, model: Any, tokenizer: Any, recipe: DistillationRecipe, stage: str) -> Manifest:
    """Distil again after a model was made smaller."""
    found = signals.read(opened.folder / "signals")
    work = work_folder(opened, stage)
    return distil(model, tokenizer, opened.dataset, found, recipe, work, opened.recipe.seed, stage, opened.report)


def work_folder(opened: Run, stage: str) -> Path:
    """Where a training keeps its checkpoints until its step is whole."""
    return opened.folder / f".work-{stage}"


def trained(opened: Run, step: run.Step, make: Callable[[Path], Manifest]) -> Manifest:
    """Run a training step on all processes; the first one writes the result.

    Checkpoints in the work folder belong to one fingerprint: those of another one are thrown away.
    """
    state = PartialState()
    work = work_folder(opened, step.name)
    if not state.is_main_process:
        if not run.may_reuse(step, opened.force):
            with tempfile.TemporaryDirectory() as scratch:
                make(Path(scratch))
        state.wait_for_everyone()
        return run.manifest(step.folder) or {}
    if not run.may_reuse(step, opened.force):
        _claim(work, step)
    result = run.run_step(step, make, opened.force)
    shutil.rmtree(work, ignore_errors=True)
    state.wait_for_everyone()
    return result


def _claim(work: Path, step: run.Step) -> None:
    """Keep a work folder only if it was begun for the same fingerprint."""
    mark = work / "fingerprint.json"
    try:
        same = files.read_json(mark) == step.fingerprint
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        files.write_json(mark, step.fingerprint)


def model_sum(source: Path) -> str:
    """One sha256 for all that a model's folder or config file holds."""
    if source.is_file():
        return files.sha256(source)
    return run.output_sum({"files": files.hash_files(source)})


STEPS: Mapping[str, tuple[Callable[[Run], run.Step], Callable[[Run], Manifest]]] = {
    "teach": (teach_step, run_teach),
    "label": (label_step, run_label),
    "student": (student_step, run_student),
}
