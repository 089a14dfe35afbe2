"""Methods side by side: they share a teacher, each is compared with it, and what is made is not made again."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from command_runs import Project, copy_steps
from test_steps import opened
from toy_translation import TRAINING, write_translation_project

from compress import compression
from compress.compression import FREE, METHODS, NOTHING, Method
from compress.compression_goals import goals, means
from compress.variants import variant
from distill.errors import RecipeError
from distill.progress import silent
from distill.recipe import parse
from distill.report import Latency, Quality, Report, Size, read_report

FEW = (
    Method("fewer layers", NOTHING, fewer=True),
    Method("heads", {**FREE, "parameters": 0.5}),
    Method("low rank", factorise={"parameters": 0.5}),
)


def test_a_variant_shares_what_the_teacher_said(project: Project, finished_run: Path, tmp_path: Path) -> None:
    copy_steps(finished_run, tmp_path / "run", "teacher", "signals")
    whole = opened(project, tmp_path / "run", prune={"heads": 0.5, "alpha": 0.9})
    found = variant(whole, "other", {"prune": {"heads": 0.25}, "student": {"layers": 4}})
    assert found.folder == tmp_path / "run" / "other"
    assert found.recipe.prune is not None and (found.recipe.prune.heads, found.recipe.prune.alpha) == (0.25, 0.9)
    weights = [folder / "teacher" / "model.safetensors" for folder in (whole.folder, found.folder)]
    assert weights[0].samefile(weights[1])
    assert variant(whole, "other", {}).recipe.prune == whole.recipe.prune  # and again, over what is there
    with pytest.raises(RecipeError, match="prune"):
        variant(whole, "other", {"prune": {"speedup": 2.0}})


def test_every_method_fits_a_recipe_that_averages_its_weights(
    project: Project, finished_run: Path, tmp_path: Path
) -> None:
    copy_steps(finished_run, tmp_path / "run", "teacher", "signals")
    whole = opened(project, tmp_path / "run", prune={"alpha": 0.9, "training": {"ema_decay": 0.99}})
    for method in METHODS:
        found = variant(whole, method.name, compression._changes(whole, method)).recipe
        sections = [each for each in (found.prune, found.factorise) if each is not None]
        assert [each.training is not None for each in sections][-1] and sections[-1].alpha == 0.9
        assert found.student.training is None and (method.prune is None) == (found.prune is None)


def test_classifiers_beside_their_teacher(project: Project, finished_run: Path, tmp_path: Path) -> None:
    copy_steps(finished_run, tmp_path / "run", "teacher", "signals")
    changes = {"prune": {"importance_examples": 16, "training": None}, "quantize": {"max_drop": 0.9, "margin": 0.09}}
    recipe = parse({**project.value(), **changes}, "toy")
    path = project.folder / "recipe.yaml"
    report = compression.classification(path, recipe, tmp_path / "run", 0.01, silent, FEW)
    quality = {(row.model, row.precision, row.method): row for row in report.quality if row.metric == "accuracy"}
    assert set(quality) == {
        ("toy teacher", "fp32", None), ("toy fewer layers", "fp32", None), ("toy heads", "fp32", None),
        ("toy low rank", "fp32", None),
        ("toy fewer layers", "int8", "dynamic"), ("toy fewer layers", "int8", "static"),
    }  # fmt: skip
    assert quality["toy fewer layers", "fp32", None].baseline == "toy teacher onnxruntime fp32"
    assert quality["toy fewer layers", "int8", "static"].baseline == "toy fewer layers onnxruntime fp32"
    assert {row.model for row in report.latency} == {"toy teacher", "toy fewer layers", "toy heads", "toy low rank"}
    made = tmp_path / "run" / "heads" / "pruned" / "run.json"
    before = made.stat().st_mtime_ns
    compression.classification(path, recipe, tmp_path / "run", 0.01, silent, FEW)
    assert made.stat().st_mtime_ns == before
    assert read_report(tmp_path / "run" / "comparison").latency
    text = goals(report)
    assert "| toy heads onnxruntime fp32 |" in text and "| toy fewer layers onnxruntime int8 static |" in text


def test_a_translation_student_before_and_after(tmp_path: Path) -> None:
    prune = {"neurons": 0.5, "heads": 0.25, "importance_examples": 16, "training": TRAINING}
    bench = {"batch_sizes": [1, 32], "max_rounds": 5, "seconds_per_cell": 0.01}
    project = write_translation_project(tmp_path / "toy", prune=prune, bench=bench)
    recipe = parse(project.value(), "toy")
    report = compression.translation(project.folder / "recipe.yaml", recipe, tmp_path / "run", 0.01, silent)
    assert [row.model for row in report.quality if row.metric == "bleu"] == [
        "toy student", "toy pruned", "toy pruned, shortlist",
    ]  # fmt: skip
    assert {row.precision for row in report.quality} == {"int8"}
    assert "| toy pruned, shortlist onnxruntime int8 dynamic |" in goals(report)


def test_a_recipe_that_does_not_prune(tmp_path: Path) -> None:
    project = write_translation_project(tmp_path / "toy")
    with pytest.raises(RecipeError, match="has no `prune` section"):
        compression.translation(project.folder / "recipe.yaml", parse(project.value(), "toy"), tmp_path, 1.0, silent)


def quality(model: str, value: float, difference: float | None = None, beams: int | None = None) -> Quality:
    metric = "accuracy" if beams is None else "bleu"
    ends = {} if difference is None else {"difference_low": difference - 0.01, "difference_high": difference + 0.01}
    return Quality(
        model, "onnxruntime", "fp32", "test", metric, value, value, value, 100, "", difference=difference, beams=beams,
        **ends,
    )  # fmt: skip


def latency(model: str, batch: int, length: int, speedup: float | None, work: str = "ids") -> Latency:
    return Latency(
        model, "onnxruntime", "fp32", "cpu", 1, batch, length, 1.0, 1.0, 1.0, 1.0, 9, work=work, speedup=speedup,
        speedup_low=speedup, speedup_high=speedup,
    )  # fmt: skip


def test_the_table_by_hand() -> None:
    report = Report(
        name="x",
        environment={},
        quality=(quality("teacher", 0.9), quality("small", 0.88, -0.02)),
        latency=(
            latency("teacher", 1, 16, None), latency("small", 1, 16, 2.0), latency("small", 8, 128, 3.0),
            latency("small", 32, 25, 4.0, "text"),
        ),
        size=(Size("small", "fp32", 2_000_000),),
    )  # fmt: skip
    lines = goals(report).splitlines()
    assert lines[2].startswith("| teacher onnxruntime fp32 | 0.9000 [0.9000, 0.9000], n=100 |  |  |")
    small = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert small[2:] == [
        "-2.00 [-3.00, -1.00]", "2.00 times [2.00, 2.00]", "", "", "3.00 times [3.00, 3.00]", "4.00 times [4.00, 4.00]",
        "2.0",
    ]  # fmt: skip


def test_means_over_seeds_by_hand() -> None:
    rows = [(quality("teacher", 0.9), quality("small", 0.9, value)) for value in (-0.01, 0.0, 0.01)]
    reports = [Report("x", {}, quality=found) for found in rows]
    reports[0] = Report("x", {}, quality=(*rows[0], quality("once", 0.9, 0.1)))
    lines = means(reports).splitlines()[2:]
    # 4.3027 * 0.01 / sqrt(3) = 0.0248
    assert lines == ["| small onnxruntime fp32 | 0.0000 | -0.0248 to 0.0248 | -0.0100, 0.0000, 0.0100 |"]


def test_each_seed_has_a_folder_of_its_own(project: Project, finished_run: Path, tmp_path: Path) -> None:
    copy_steps(finished_run, tmp_path / "all" / "seed-42" / "toy", "teacher", "signals")
    small = ["prune.training=null", "prune.importance_examples=16", "quantize.max_drop=0.9", "quantize.margin=0.09"]
    found = CliRunner().invoke(compression.compression, [
        str(tmp_path / "all"), str(project.recipe), "--seeds", "42", "--only", "fewer layers", "--seconds", "0.01",
        *(part for change in small for part in ("--set", change)),
    ])  # fmt: skip
    assert found.exit_code == 0, found.output
    text = (tmp_path / "all" / "means.md").read_text()
    assert "| toy fewer layers onnxruntime fp32 |" in text and text in found.output
    assert {row.model for row in read_report(tmp_path / "all" / "seed-42").latency} == {
        "toy teacher",
        "toy fewer layers",
    }
