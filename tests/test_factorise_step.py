"""The step that puts maps in factors: a student, pruned or not, becomes a smaller checkpoint, bundle and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_runs import TRAINING, Project, copy_steps
from test_steps import opened
from toy_translation import TRAINING as PAIRS_TRAINING
from toy_translation import write_translation_project

from compress import steps as compress_steps
from compress.low_rank.step import factorise_step, run_factorise
from compress.pipeline import run_all
from distill import run, steps
from distill.checkpoint import load_model
from distill.errors import RecipeError, RunError
from distill.files import read_json
from distill.layers import layers, model_config
from distill.low_rank import RANKS_KEY, low_rank_maps
from distill.recipe import FactoriseRecipe
from distill.seq2seq import load_seq2seq
from export.bundle import read_bundle

SHORT = {**TRAINING, "num_train_epochs": 1}
FACTORISE: dict[str, Any] = {"parameters": 0.6, "calibration_examples": 24, "training": SHORT}


QUANTIZE = {"methods": ["dynamic"], "max_drop": 0.9, "margin": 0.9, "max_flips": 1, "calibration_examples": 8}


@pytest.fixture(scope="module")
def finished(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the learning steps make of a recipe that prunes and factorises; not to be changed, only copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    found = opened(project, folder, factorise=FACTORISE)
    for work in (steps.run_teach, steps.run_label, steps.run_student):
        work(found)
    assert found.recipe.prune is not None and found.recipe.factorise is not None
    compress_steps.run_prune(found, found.recipe.prune)
    run_factorise(found, found.recipe.factorise)
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "run.json"))["result"]  # type: ignore[no-any-return]


def test_the_pruned_student_is_put_in_factors(finished: Path) -> None:
    pruned, model = load_model(finished / "pruned"), load_model(finished / "factorised")
    result = manifest(finished / "factorised")
    assert [layer.size for layer in layers(model)] == [layer.size for layer in layers(pruned)]
    assert {path: each.rank for path, each in low_rank_maps(model).items()} == result["ranks"]
    assert result["ranks"] == getattr(model_config(model), RANKS_KEY) and result["steps"] == 7
    assert 0.3 < result["parameters"] <= 0.6 and 0.5 < result["energy"] <= 1
    count, before = (sum(value.numel() for value in each.parameters()) for each in (model, pruned))
    assert count < before


@pytest.mark.slow
def test_what_is_exported_quantized_and_measured_is_the_last_one(
    project: Project, finished: Path, tmp_path: Path
) -> None:
    folder = copy_steps(finished, tmp_path / "run", "teacher", "signals", "student", "pruned", "factorised")
    run_all(opened(project, folder, factorise=FACTORISE, quantize=QUANTIZE))
    report = json.loads((folder / "report" / "report.json").read_text())
    assert {"teacher", "student", "pruned", "factorised", "bundle"} == {row["model"] for row in report["quality"]}
    sizes = {(row["model"], row["precision"]): row["bytes"] for row in report["size"] if row["runtime"] == "torch"}
    assert sizes[("factorised", "fp32")] < sizes[("pruned", "fp32")]


def test_its_bundle_answers_like_torch_and_is_int8_in_both_factors(
    project: Project, finished: Path, tmp_path: Path
) -> None:
    folder = copy_steps(finished, tmp_path / "run", "teacher", "signals", "student", "pruned", "factorised")
    found = opened(project, folder, factorise=FACTORISE, quantize=QUANTIZE)
    compress_steps.run_export(found, compress_steps.last_checkpoint(found), "fp32")
    assert found.recipe.quantize is not None
    compress_steps.run_quantize(found, found.recipe.quantize)
    bundle = read_bundle(folder / "fp32")
    assert bundle.details["graph"] == "built from the weights" and bundle.details["parity"]["max_abs"] < 1e-5
    products = read_bundle(folder / "bundle").details["quantization"]["products"]
    # of two layers: queries, keys and values, the last one's queries apart, three maps each; the head's two
    count = 3 + 2 * 3 + 2 + len(manifest(folder / "factorised")["ranks"])
    assert products == f"{count} of {count} products quantized"


FINGERPRINTS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"bench": {"threads": [1]}}, True),
    ({"factorise": {**FACTORISE, "parameters": 0.7}}, False),
    ({"factorise": {**FACTORISE, "weighting": "none"}}, False),
    ({"factorise": {**FACTORISE, "alpha": 0.1}}, False),
    ({"seed": 7}, False),
]


@pytest.mark.parametrize(("changes", "stands"), FINGERPRINTS)
def test_what_the_step_depends_on(project: Project, finished: Path, tmp_path: Path, changes: Any, stands: bool) -> None:
    folder = copy_steps(finished, tmp_path / "run", "teacher", "signals", "student", "pruned", "factorised")
    found = opened(project, folder, **{"factorise": FACTORISE, **changes})
    assert found.recipe.factorise is not None
    step = factorise_step(found, found.recipe.factorise)
    try:
        assert run.is_done(step) is stands
    except RecipeError as error:
        assert not stands and "factorised" in str(error)


def test_without_pruning_it_follows_the_student(project: Project, finished: Path, tmp_path: Path) -> None:
    folder = copy_steps(finished, tmp_path / "run", "teacher", "signals", "student", "pruned")
    changes = {**FACTORISE, "weighting": "none", "parameters": None, "energy": 0.5}
    found = opened(project, folder, prune=None, factorise=changes)
    assert found.recipe.factorise is not None
    run_factorise(found, found.recipe.factorise)
    student, model = load_model(folder / "student"), load_model(folder / "factorised")
    assert [layer.size for layer in layers(model)] == [layer.size for layer in layers(student)]
    assert compress_steps.last_checkpoint(found) == "factorised"


def test_nothing_to_save_and_nothing_to_start_from(project: Project, finished: Path, tmp_path: Path) -> None:
    folder = copy_steps(finished, tmp_path / "run", "teacher", "signals", "student", "pruned")
    found = opened(project, folder, factorise={**FACTORISE, "parameters": None, "energy": 0.99999})
    assert found.recipe.factorise is not None
    with pytest.raises(RecipeError, match="factorise: no rank saves anything"):
        run_factorise(found, found.recipe.factorise)
    assert not (folder / "factorised").exists()
    found = opened(project, tmp_path / "empty", factorise=FACTORISE)
    with pytest.raises(RunError, match=r"pruned is not there or not finished; run `compress run \(step pruned\)`"):
        factorise_step(found, FactoriseRecipe())


def test_translation_students_recover_on_their_teachers_translations(tmp_path: Path) -> None:
    training = {**PAIRS_TRAINING, "num_train_epochs": 1}
    project = write_translation_project(
        tmp_path / "toy", label={"beams": 1, "word_logits": 3}, factorise={**FACTORISE, "training": training}
    )
    found = opened(project, tmp_path / "run")
    assert found.recipe.factorise is not None
    for work in (steps.run_teach, steps.run_label, steps.run_student):
        work(found)
    run_factorise(found, found.recipe.factorise)
    compress_steps.run_export(found, compress_steps.last_checkpoint(found), "fp32")
    model = load_seq2seq(found.folder / "factorised")
    result = manifest(found.folder / "factorised")
    assert {path: each.rank for path, each in low_rank_maps(model).items()} == result["ranks"]
    assert {path.split(".")[1] for path in result["ranks"]} == {"encoder", "decoder"} and result["pairs"] > 0
    assert read_bundle(found.folder / "fp32").details["parity"]["max_abs"] < 1e-4
    assert torch.isfinite(next(iter(low_rank_maps(model).values())).matrix()).all()
