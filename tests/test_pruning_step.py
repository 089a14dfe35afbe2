"""The step: from a recipe to a pruned checkpoint that has recovered, for both kinds of task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_runs import Project, copy_steps
from test_steps import opened
from toy_translation import MARIAN, TRAINING, write_translation_project

from compress import steps
from distill.checkpoint import load_model
from distill.errors import RecipeError
from distill.files import read_json
from distill.layers import layers
from distill.recipe import PruneRecipe
from distill.seq2seq import load_seq2seq
from distill.steps import Run, run_label, run_student, run_teach
from distill.stream import stream
from export.bundle import read_bundle
from export.runtime import Predictor, Translator, load_as

WIDE: dict[str, Any] = {"config": {**MARIAN, "d_model": 64}, "training": TRAINING}


def pruned(run_: Run) -> dict[str, Any]:
    """What the step says that it did."""
    assert run_.recipe.prune is not None
    steps.run_prune(run_, run_.recipe.prune)
    return dict(read_json(run_.folder / "pruned" / "run.json")["result"])


def from_teacher(project: Project, finished_run: Path, folder: Path, **prune: Any) -> Run:
    """The finished run's teacher and signals, and a student that is the teacher itself."""
    copy_steps(finished_run, folder, "teacher", "signals")
    student = {"layers": 4, "training": None}
    run_ = opened(project, folder, student=student, prune={"importance_examples": 16, **prune})
    run_student(run_)
    return run_


def test_a_student_that_is_not_trained_is_its_teacher(project: Project, finished_run: Path, tmp_path: Path) -> None:
    run_ = from_teacher(project, finished_run, tmp_path / "run", heads=0.5)
    teacher, student = (load_model(run_.folder / name).state_dict() for name in ("teacher", "student"))
    assert all(torch.equal(value, teacher[key]) for key, value in student.items())


def test_layers_go_and_half_of_the_parameters_without_training(
    project: Project, finished_run: Path, tmp_path: Path
) -> None:
    run_ = from_teacher(
        project, finished_run, tmp_path / "run", layers=3, parameters=0.5, importance="fisher", training=None
    )
    result = pruned(run_)
    assert len(result["layers_before"]) == 4 and len(result["layers"]) == len(result["kept_layers"]) == 3
    found = [layer.size.to_json() for layer in layers(load_model(run_.folder / "pruned"))]
    assert found == result["layers"]
    assert sum(size["heads"] for size in found) < 12


def test_in_rounds_with_a_training_behind_each(project: Project, finished_run: Path, tmp_path: Path) -> None:
    training = {"num_train_epochs": 2, "learning_rate": 0.001, "bf16": False}
    run_ = from_teacher(project, finished_run, tmp_path / "run", heads=0.75, neurons=0.0, rounds=2, training=training)
    result = pruned(run_)
    assert sum(size["heads"] for size in result["layers"]) == 4  # 16, 8, 4
    journal = map(json.loads, (run_.folder / "metrics.jsonl").read_text().splitlines())
    stages = {line["stage"] for line in journal} - {"student"}
    assert stages == {"prune-1", "prune-2"}


def wide_student(project: Project, finished_run: Path, folder: Path, **prune: Any) -> Run:
    """A student of random weights, 64 wide."""
    config = json.loads((finished_run / "teacher" / "config.json").read_text())
    path = folder.parent / "config.json"
    path.write_text(json.dumps({**config, "hidden_size": 64, "initializer_range": 0.2}))
    copy_steps(finished_run, folder, "teacher", "signals")
    student = {"config": str(path), "training": None}
    run_ = opened(project, folder, student=student, prune={"importance_examples": 16, **prune})
    run_student(run_)
    return run_


def test_width_in_rounds_besides_heads(project: Project, finished_run: Path, tmp_path: Path) -> None:
    training = {"num_train_epochs": 2, "learning_rate": 0.001, "bf16": False}
    run_ = wide_student(
        project, finished_run, tmp_path / "run", width=0.5, heads=0.5, neurons=0.0, rounds=2, training=training
    )
    result = pruned(run_)
    smaller = load_model(run_.folder / "pruned")
    assert (result["width_before"], result["width"]) == (64, 32) and stream(smaller).width == 32
    assert sum(layer.size.heads for layer in layers(smaller)) == 8
    steps.run_export(run_, "pruned", "fp32")
    bundle = read_bundle(run_.folder / "fp32")
    assert bundle.details["parity"]["max_abs"] < 1e-4
    assert load_as(Predictor, run_.folder / "fp32")(["a fine film"])


@pytest.mark.parametrize("target", [{"parameters": 0.9}, {"heads": 0.0, "neurons": 0.0}])
def test_width_with_a_target_and_alone(
    target: dict[str, float], project: Project, finished_run: Path, tmp_path: Path
) -> None:
    run_ = wide_student(project, finished_run, tmp_path / "run", width=0.4, training=None, **target)
    result = pruned(run_)
    assert result["width"] == 32
    assert (result["layers"] == result["layers_before"]) == ("heads" in target)


@pytest.mark.parametrize("sparsity", [0.75, "2:4"])
def test_zeros_stay_zeros_through_the_training(
    project: Project, finished_run: Path, tmp_path: Path, sparsity: Any
) -> None:
    training = {"num_train_epochs": 1, "learning_rate": 0.001, "bf16": False, "ema_decay": 0.9}
    run_ = from_teacher(
        project, finished_run, tmp_path / "run", heads=0.0, neurons=0.0, sparsity=sparsity, training=training
    )
    share = 0.75 if sparsity == 0.75 else 0.5
    assert pruned(run_)["zeros"] == pytest.approx(share, abs=0.01)
    for layer in layers(load_model(run_.folder / "pruned")):
        assert float((layer.linear("up").weight == 0).float().mean()) == pytest.approx(share, abs=0.01)


def test_layers_that_go_count_for_the_speed(project: Project, finished_run: Path, tmp_path: Path) -> None:
    """One of four layers is fast enough by itself: none of its heads and neurons has to go."""
    run_ = from_teacher(project, finished_run, tmp_path / "run", layers=1, speedup=1.05, length=16, training=None)
    result = pruned(run_)
    assert result["kept_layers"] == [0] and result["layers"] == result["layers_before"][:1]


def test_a_speed_out_of_reach(project: Project, finished_run: Path, tmp_path: Path) -> None:
    run_ = from_teacher(project, finished_run, tmp_path / "run", speedup=1000.0, training=None)
    with pytest.raises(RecipeError, match="1000 were asked for"):
        pruned(run_)
    assert not (run_.folder / "pruned").exists()


def test_a_translation_student_is_pruned_exported_and_quantized(tmp_path: Path) -> None:
    prune = {
        "encoder_layers": 1, "heads": 0.25, "neurons": 0.5, "width": 0.4, "importance": "fisher",
        "importance_examples": 24, "sparsity": 0.5, "training": TRAINING,
    }  # fmt: skip
    project = write_translation_project(tmp_path / "toy", prune=prune, teacher=WIDE)
    run_ = opened(project, tmp_path / "run", quantize={"max_drop": 100, "margin": 100})
    for make in (run_teach, run_label, run_student):
        make(run_)
    result = pruned(run_)
    assert result["kept_layers"] == [0, 2] and result["pairs"] > 0
    smaller = load_seq2seq(run_.folder / "pruned")
    assert [layer.size.to_json() for layer in layers(smaller)] == result["layers"]
    assert result["layers"] != result["layers_before"]
    assert stream(smaller).width == result["width"] == 32 and result["width_before"] == 64
    steps.run_export(run_, "pruned", "fp32")
    assert run_.recipe.quantize is not None
    steps.run_quantize(run_, run_.recipe.quantize)
    assert read_bundle(run_.folder / "bundle").precision == "int8-dynamic"
    assert load_as(Translator, run_.folder / "bundle")(["1 2 3"])[0].text is not None


def test_defaults_are_shares() -> None:
    assert PruneRecipe().heads is None and PruneRecipe(speedup=2.0).neurons is None
    assert PruneRecipe().width == 0 and PruneRecipe(width=0.5, speedup=2.0).width == 0.5
