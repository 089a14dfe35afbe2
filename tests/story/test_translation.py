"""The whole story of translation through the real command line: pairs in, a tested int8 bundle that apps load out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_runs import command, start
from toy_translation import MARIAN, TRAINING, reversals, write_translation_project

from distill import files
from distill.data import read
from distill.recipe import load as load_recipe
from distill.report import read_report
from export.bundle import read_bundle
from potstill import load

pytestmark = pytest.mark.slow

STEPS = ["teacher", "signals", "student", "teacher-fp32", "fp32", "bundle", "report"]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The recipe, its finished run, and what the command printed: rows of digits are learned to be read backwards."""
    training = {**TRAINING, "num_train_epochs": 27, "tokens_per_batch": 1000, "learning_rate": 0.003}
    often = {**training, "eval_strategy": "steps", "eval_steps": 200}
    project = write_translation_project(
        tmp_path_factory.mktemp("story") / "toy",
        rows=3000,
        teacher={"config": MARIAN, "training": {**often, "ema_decay": 0.98}},
        label={"beams": 2, "n_best": 1, "word_logits": 4},
        student={"encoder_layers": 2, "decoder_layers": 1, "training": {**often, "num_train_epochs": 20}},
        bench={"batch_sizes": [1], "threads": [1], "seconds_per_cell": 0.1, "max_rounds": 5},
    )
    run = project.folder / "run"
    planned = command("compress", "run", project.recipe, "-o", run, "--dry-run", "--json", watched=run)
    assert json.loads(planned.out) == dict.fromkeys(STEPS, "to do")
    ended = start("compress", "run", project.recipe, "-o", run, watched=run).end(seconds=1800)
    assert ended.code == 0, ended.err
    return project.recipe, run, ended.out


def test_every_step_left_its_folder_whole(story: tuple[Path, Path, str]) -> None:
    recipe, run, printed = story
    visible = sorted(path.name for path in run.iterdir() if not path.name.startswith("."))
    assert visible == sorted([*STEPS, "metrics.jsonl", "recipe.yaml"])
    assert {path.name for path in (run / "report").iterdir()} >= {"report.json", "report.md", "pareto.png"}
    again = command("compress", "run", recipe, "-o", run, watched=run)
    assert (again.code, again.out) == (0, printed)
    planned = command("compress", "run", recipe, "-o", run, "--dry-run", "--json", watched=run)
    assert json.loads(planned.out) == dict.fromkeys(STEPS, "up to date")


def test_teacher_and_student_have_learned_to_read_backwards(story: tuple[Path, Path, str]) -> None:
    for name in ("teacher", "student"):
        assert files.read_json(story[1] / name / "run.json")["result"]["best"] > 95
    assert files.read_json(story[1] / "student" / "config.json")["decoder_layers"] == 1


def test_the_int8_bundle_translates_what_nobody_has_seen(story: tuple[Path, Path, str]) -> None:
    recipe, run, _ = story
    parsed = load_recipe(recipe)
    unseen = read(parsed.data, parsed.task, parsed.seed, recipe.parent).splits["test"]
    model = load(run / "bundle", threads=1)
    found = [answer.text for answer in model(unseen.texts)]
    assert dict(reversals(3000)).items() >= dict(zip(unseen.texts, unseen.targets or (), strict=True)).items()
    assert sum(a == b for a, b in zip(found, unseen.targets or (), strict=True)) / len(found) > 0.95


def test_the_report_says_what_the_models_do(story: tuple[Path, Path, str]) -> None:
    report = read_report(story[1] / "report")
    bleu = {f"{row.model} {row.runtime}": row.value for row in report.quality if row.metric == "bleu"}
    assert len(report.quality) == 2 * len(bleu) == 10 and min(bleu.values()) > 95
    fp32 = [row for row in report.parity if "int8" not in row.b]
    assert len(fp32) == 2 and all(row.agreement > 0.99 for row in fp32)
    assert {row.model for row in report.latency if (row.words_per_second or 0) > 0} == {"teacher", "student", "bundle"}
    sizes = {row.model: row.bytes for row in report.size}
    assert sizes["teacher"] > sizes["student"] > sizes["bundle"]


def test_the_bundle_says_how_it_was_judged(story: tuple[Path, Path, str]) -> None:
    found = read_bundle(story[1] / "bundle").details["quantization"]
    assert found["products"] == "16 of 16 products quantized"
    judged = found["tried"]["dynamic"]
    assert (judged["gate"]["state"], judged["gate"]["drop"]["metric"]) == ("passed", "bleu")
    assert judged["validation"]["n"] == judged["gate"]["drop"]["n"] >= 300
    assert judged["agreement"] > 0.95 and judged["gate"]["drop"]["value"] <= 0.3


@pytest.mark.parametrize(("name", "model", "runtime"), [("teacher", "teacher", "torch"), ("bundle", "bundle", "onnx")])
def test_evaluate_says_what_the_report_says(story: tuple[Path, Path, str], name: str, model: str, runtime: str) -> None:
    recipe, run, _ = story
    ended = command("distill", "evaluate", run / name, recipe, "--json", watched=run)
    assert ended.code == 0, ended.err
    rows = [row for row in read_report(run / "report").quality if row.model == model and runtime in row.runtime]
    found = json.loads(ended.out)
    scores = [(each["metric"], each["value"], each["n"]) for each in (found, *found["others"])]
    assert scores == [(row.metric, row.value, row.n) for row in rows if row.runtime == rows[0].runtime]


def test_evaluate_with_beams_in_words(story: tuple[Path, Path, str]) -> None:
    recipe, run, _ = story
    ended = command("distill", "evaluate", run / "bundle", recipe, "--beams", "2", "--split", "validation", watched=run)
    bleu, chrf = ended.out.splitlines()
    assert bleu.startswith("bleu ") and "95 % interval" in bleu and "tok:13a" in bleu and chrf.startswith("chrf ")


def test_rows_54_and_55_a_gate_that_is_not_met(story: tuple[Path, Path, str]) -> None:
    recipe, run, _ = story
    before, target = files.hash_files(run / "fp32"), run.parent / "strict"
    words = ("compress", "quantize", run / "fp32", "--recipe", recipe, "-o", target, "--set", "quantize.margin=0")
    ended = command(*words, watched=run)
    assert ended.code == 3
    assert "undecided: n=3" in ended.err and "bleu drops by" in ended.err and "need about" in ended.err
    assert read_bundle(run.parent / "rejected-strict").precision == "int8-dynamic"
    assert not target.exists() and files.hash_files(run / "fp32") == before
