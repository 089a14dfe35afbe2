"""The learning steps as folders: labels go by name, teachers are used as they are or refused, a dry look is dry."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_runs import Project, copy_steps, weights

from distill import run, signals, steps
from distill.checkpoint import load_model, load_tokenizer, save
from distill.errors import CheckpointError, DataError, RecipeError, RunError
from distill.label import logits
from distill.progress import silent
from distill.recipe import parse
from distill.task import Task


def opened(project: Project, folder: Path, force: bool = False, **changes: Any) -> steps.Run:
    """The project's run with some sections of its recipe replaced."""
    recipe = parse({**project.value(), **changes}, "recipe")
    folder.mkdir(parents=True, exist_ok=True)
    return steps.open_run(recipe, folder, project.folder, folder / "cache", force, silent)


def write_teacher(folder: Path, source: Path, labels: Sequence[str], own: bool) -> Path:
    """A teacher fine-tuned by somebody: with these labels, written by us or without our task.json."""
    task = Task("classification", tuple(labels), max_length=32)
    save(load_model(source, task, 3), load_tokenizer(source), task, folder)
    if not own:
        (folder / "task.json").unlink()
    return folder


AS_IT_IS: dict[str, Any] = {"training": None}


@pytest.mark.parametrize("own", [True, False])
def test_row_45_a_teacher_whose_labels_stand_in_another_order(
    project: Project, tiny_encoder: Path, tmp_path: Path, own: bool
) -> None:
    found = {}
    for name, order in (("same", ("negative", "positive")), ("turned", ("positive", "negative"))):
        teacher = write_teacher(tmp_path / name, tiny_encoder, order, own)
        run_ = opened(project, tmp_path / f"run-{name}", teacher={"model": str(teacher), **AS_IT_IS})
        steps.run_teach(run_)
        steps.run_label(run_)
        answers = signals.read(run_.folder / "signals")
        assert answers.labels == run_.dataset.task.labels == ("negative", "positive")
        source = load_model(teacher, Task("classification", order))
        direct = logits(source, load_tokenizer(teacher), run_.dataset.splits["train"], run_.dataset.task)
        by_name = direct[:, [order.index(label) for label in run_.dataset.task.labels]]
        assert np.allclose(answers.of(run_.dataset.splits["train"].ids, answers.labels), by_name, atol=1e-6)
        found[name] = answers.logits
    assert not np.allclose(found["same"], found["turned"]), "the same head read the other way round"
    assert np.allclose(found["same"], found["turned"][:, ::-1], atol=1e-6)


LABELS = [
    (("negative", "neutral"), ["'positive' is in the data", "'neutral' is a teacher's answer"]),
    (("negative", "neutral", "positive"), ["'neutral' is a teacher's answer"]),
    (("LABEL_0", "LABEL_1"), ["'negative' is in", "'positive' is in", "'LABEL_0' is a", "'LABEL_1' is a"]),
]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("labels", "problems"), LABELS)
def test_row_45_a_teacher_of_other_labels_is_not_used_as_it_is(
    project: Project, tiny_encoder: Path, tmp_path: Path, labels: tuple[str, ...], problems: list[str], own: bool
) -> None:
    teacher = write_teacher(tmp_path / "teacher", tiny_encoder, labels, own)
    run_ = opened(project, tmp_path / "run", teacher={"model": str(teacher), **AS_IT_IS})
    with pytest.raises(DataError, match="answers other labels than the task's") as error:
        steps.run_teach(run_)
    assert error.value.exit_code == 2
    assert [found.startswith(expected) for found, expected in zip(error.value.problems, problems, strict=True)]
    assert not (run_.folder / "teacher").exists()


def test_an_encoder_without_a_head_is_not_used_as_it_is(project: Project, tmp_path: Path) -> None:
    run_ = opened(project, tmp_path / "run", teacher={"model": "encoder", **AS_IT_IS})
    with pytest.raises(DataError, match="fine-tune it"):
        steps.run_teach(run_)


def test_a_teacher_of_other_labels_can_be_fine_tuned(project: Project, tiny_encoder: Path, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher", tiny_encoder, ("a", "b", "c"), own=True)
    training = project.value()["teacher"]["training"] | {"num_train_epochs": 1}
    run_ = opened(project, tmp_path / "run", teacher={"model": str(teacher), "training": training})
    assert steps.run_teach(run_)["result"]["steps"] == 7
    assert load_model(run_.folder / "teacher").config.num_labels == 2


def test_a_label_step_before_its_teacher_says_what_to_do(project: Project, tmp_path: Path) -> None:
    run_ = opened(project, tmp_path / "run")
    with pytest.raises(RunError, match="teacher is not there or not finished; run `distill teach` first"):
        steps.run_label(run_)
    with pytest.raises(RunError, match="run `distill teach` first"):
        steps.run_student(run_)


FINGERPRINTS: list[tuple[str, dict[str, Any], bool]] = [
    # which step, what changes in the recipe, whether its old result still stands
    ("teach", {}, True),
    ("teach", {"student": {"layers": 1}}, True),
    ("teach", {"name": "other"}, True),
    ("teach", {"seed": 1}, False),
    ("teach", {"teacher": {"model": "encoder", **AS_IT_IS}}, False),
    ("label", {"student": {"layers": 1}}, True),
    ("student", {"student": {"layers": 1}}, False),
    ("student", {"bench": {"threads": [1]}}, True),
    ("student", {"task": {"max_length": 31}}, False),
]


@pytest.mark.parametrize(("name", "changes", "stands"), FINGERPRINTS)
def test_row_11_what_a_step_depends_on(
    project: Project, finished_run: Path, name: str, changes: dict[str, Any], stands: bool
) -> None:
    recipe = parse({**project.value(), **changes}, "recipe")
    run_ = steps.open_run(recipe, finished_run, project.folder, finished_run.parent / "cache", False, silent)
    step, _ = steps.STEPS[name]
    if stands:
        assert run.is_done(step(run_))
        return
    with pytest.raises(RecipeError) as error:
        run.is_done(step(run_))
    assert error.value.problems


def test_a_changed_model_folder_changes_the_fingerprint(project: Project, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(project.folder, tmp_path / "toy")
    (tmp_path / "toy" / "encoder" / "tokenizer_config.json").write_text("{}")
    folder = copy_steps(finished_run, tmp_path / "run", "teacher")
    with pytest.raises(RecipeError) as error:
        steps.run_teach(opened(Project(tmp_path / "toy"), folder))
    assert error.value.problems[0].startswith("inputs.model: was")


def test_row_15_weights_that_are_not_numbers_are_refused(
    project: Project, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    teacher = shutil.copytree(tiny_checkpoint, tmp_path / "teacher")
    tensors = load_file(teacher / "model.safetensors")
    tensors["classifier.bias"][0] = torch.nan
    save_file(tensors, teacher / "model.safetensors", {"format": "pt"})
    run_ = opened(project, tmp_path / "run", teacher={"model": str(teacher), **AS_IT_IS})
    with pytest.raises(CheckpointError, match="NaN or infinite") as error:
        steps.run_teach(run_)
    assert error.value.problems == ("classifier.bias",)
    assert not (run_.folder / "teacher").exists()


def test_the_same_recipe_makes_the_same_weights_in_another_process(
    project: Project, finished_run: Path, tmp_path: Path
) -> None:
    run_ = opened(project, tmp_path / "run")
    for make in (steps.run_teach, steps.run_label, steps.run_student):
        make(run_)
    for name in ("teacher", "student"):
        assert weights(run_.folder / name) == weights(finished_run / name)
    steps.write_recipe(run_)
    assert parse(project.value(), "recipe") == run_.recipe
    assert (run_.folder / "recipe.yaml").exists()
