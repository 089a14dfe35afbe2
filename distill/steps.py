"""The learning steps as folders: what each reads, what it makes, and when its old result still stands."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import data, files, processes, run, signals
from distill.checkpoint import fetch, load_model, load_tokenizer, save
from distill.config_file import read_config
from distill.errors import DataError, RecipeError, RunError
from distill.label import label
from distill.models import build_student
from distill.progress import Report, silent
from distill.recipe import DistillationRecipe, Recipe
from distill.student import distil
from distill.task import Task
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
        training = recipe.teacher.training
        if training is None:
            _expect_labels(source, dataset.task)
        model, tokenizer = load_model(source, dataset.task, recipe.seed), load_tokenizer(source)
        work = work_folder(opened, "teach")
        result = teach(model, tokenizer, dataset, training, work, recipe.seed, opened.report) if training else {}
        save(model, tokenizer, dataset.task, folder)
        return result

    return trained(opened, teach_step(opened), make)


def _expect_labels(source: Path, task: Task) -> None:
    """Refuse a teacher that is used as it is and answers other labels; their order does not matter.

    Raises:
        DataError: naming the labels that one side has and the other has not.
    """
    config = read_config(source / "config.json")
    own = [str(config.id2label[i]) for i in range(config.num_labels)]
    missing, extra = set(task.labels) - set(own), set(own) - set(task.labels)
    problems = [f"{label!r} is in the data, the teacher never answers it" for label in sorted(missing)]
    problems += [f"{label!r} is a teacher's answer that the data does not have" for label in sorted(extra)]
    if problems:
        raise DataError(
            f"the teacher {source} answers other labels than the task's; rename the data's with task.label_names, "
            "or fine-tune it (teacher.training)",
            problems,
        )


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

    return alone(opened, label_step(opened), make)


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
    return (opened.folder / f".work-{stage}").resolve()


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
    if differing and any(work.glob("checkpoint-*")) and not force:
        raise RecipeError(
            f"{work} holds checkpoints of a {step.name} step with other settings; "
            "choose another folder with -o, or --force to begin again",
            differing,
        )
    if differing:
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
