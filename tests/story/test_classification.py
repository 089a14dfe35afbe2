"""The whole story through the real command line: labelled text in, a tested int8 bundle that an app can load out."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_runs import command
from conftest import FILLER, NEGATIVE, POSITIVE, toy_rows, write_toy_csv

from distill import files
from distill.report import read_report
from potstill import load

pytestmark = pytest.mark.slow

TRAINING = {"per_device_train_batch_size": 16, "learning_rate": 3e-3, "bf16": False}
STEPS = ["teacher", "signals", "student", "pruned", "teacher-fp32", "fp32", "bundle", "report"]
SETTINGS: dict[str, Any] = {
    "seed": 7,
    "task": {"max_length": 32},
    "student": {"layers": 2, "training": {**TRAINING, "num_train_epochs": 4}},
    "prune": {"heads": 0.25, "neurons": 0.5, "training": {**TRAINING, "num_train_epochs": 2, "learning_rate": 1e-3}},
    "quantize": {"max_drop": 0.05, "margin": 0.05, "max_flips": 0.05},
    "bench": {"batch_sizes": [1], "lengths": [8], "threads": [1], "seconds_per_cell": 0.1, "max_rounds": 5},
}


def write_recipe(folder: Path, encoder: Path, **changes: Any) -> Path:
    teacher = {"model": str(encoder), "training": {**TRAINING, "num_train_epochs": 6}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "toy", "teacher": teacher, **SETTINGS, **changes}))
    return path


def stamps(run: Path) -> dict[str, tuple[str, int]]:
    """Each step's manifest: its sha256 and when it was written."""
    found = {name: run / name / "run.json" for name in STEPS if (run / name).is_dir()}
    return {name: (files.sha256(path), path.stat().st_mtime_ns) for name, path in found.items()}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> tuple[Path, Path, str]:
    """The recipe, its finished run, and what the command printed."""
    folder = tmp_path_factory.mktemp("story")
    write_toy_csv(folder / "toy.csv", 400)
    data = {"source": "toy.csv", "allow_leakage": True, "split": {"validation": 0.25, "test": 0.25}}
    recipe = write_recipe(folder, tiny_encoder, data=data)
    ended = command("compress", "run", recipe, "-o", folder / "run", watched=folder / "run")
    assert ended.code == 0, ended.err
    return recipe, folder / "run", ended.out


def test_every_step_left_its_folder_whole(story: tuple[Path, Path, str]) -> None:
    _, run, _ = story
    visible = sorted(path.name for path in run.iterdir() if not path.name.startswith("."))
    assert visible == sorted([*STEPS, "metrics.jsonl", "recipe.yaml"])
    for name in STEPS:
        manifest = files.read_json(run / name / "run.json")
        assert {key: entry["sha256"] for key, entry in manifest["files"].items()} == {
            key: entry["sha256"] for key, entry in files.hash_files(run / name).items() if key != "run.json"
        }
    assert [path.name for path in run.glob(".*") if path.name != ".lock"] == []


def test_the_bundle_has_learned_the_task(story: tuple[Path, Path, str]) -> None:
    report = read_report(story[1] / "report" / "report.json")
    values = {f"{row.model} {row.runtime} {row.precision}": row.value for row in report.quality}
    assert len(values) == 6 and all(row.n == 100 for row in report.quality)
    assert {name.partition(" ")[0] for name in values} == {"teacher", "student", "pruned", "bundle"}
    assert min(values.values()) > 0.9, values


def test_each_step_made_the_model_smaller(story: tuple[Path, Path, str]) -> None:
    report = read_report(story[1] / "report" / "report.json")
    sizes = {row.model: row.bytes for row in report.size if row.precision != "fp32" or row.model != "bundle"}
    assert sizes["teacher"] > sizes["student"] > sizes["pruned"] > sizes["bundle"]


def test_the_report_is_there_in_every_form(story: tuple[Path, Path, str]) -> None:
    _, run, printed = story
    folder = run / "report"
    assert {path.name for path in folder.iterdir()} >= {"report.json", "report.md", "pareto.png", "pareto.html"}
    assert printed.strip() == (folder / "report.md").read_text().strip()
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    value = json.loads((folder / "report.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert value["format"] == 1 and value["name"] == "toy"
    assert all(value[part] for part in ("quality", "latency", "size", "memory", "parity", "layers", "environment"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"teach", "student", "prune"}


def test_torch_and_onnxruntime_agree(story: tuple[Path, Path, str]) -> None:
    report = read_report(story[1] / "report" / "report.json")
    fp32 = [row for row in report.parity if "int8" not in row.b]
    assert fp32 and all(row.max_abs is not None and row.max_abs < 1e-4 and row.agreement == 1.0 for row in fp32)


def test_nothing_in_the_bundle_names_this_machine(story: tuple[Path, Path, str]) -> None:
    recipe, run, _ = story
    for path in (path for name in ("bundle", "fp32") for path in (run / name).rglob("*") if path.is_file()):
        data = path.read_bytes()
        for name in (str(recipe.parent), "site-packages", str(Path.home()) + "/", str(Path(__file__).parents[2])):
            assert name.encode() not in data, (path, name)


def test_a_second_run_finds_everything_done(story: tuple[Path, Path, str]) -> None:
    recipe, run, printed = story
    before = stamps(run)
    assert sorted(before) == sorted(STEPS)
    again = command("compress", "run", recipe, "-o", run, watched=run)
    assert (again.code, again.out) == (0, printed)
    assert stamps(run) == before
    planned = command("compress", "run", recipe, "-o", run, "--dry-run", "--json", watched=run)
    assert json.loads(planned.out) == dict.fromkeys(STEPS, "up to date")


def test_other_settings_are_not_taken_for_the_old_ones(story: tuple[Path, Path, str]) -> None:
    recipe, run, _ = story
    before = stamps(run)
    ended = command("compress", "run", recipe, "-o", run, "--set", "student.alpha=0.75", watched=run)
    assert ended.code == 2
    assert "student.alpha: was 0.5, is 0.75" in ended.err and "choose another folder with -o" in ended.err
    assert stamps(run) == before


def test_an_app_loads_the_bundle_without_torch(story: tuple[Path, Path, str]) -> None:
    code = """
import sys
from potstill import load
model = load(sys.argv[1], threads=1)
for answer in model(sys.argv[2:]):
    print(answer.label)
assert not {"torch", "transformers", "pydantic", "onnx"} & set(sys.modules)
"""
    rows = toy_rows(20, seed=99)
    arguments = [sys.executable, "-c", code, str(story[1] / "bundle"), *(text for text, _ in rows)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    right = sum(found == label for found, (_, label) in zip(done.stdout.split(), rows, strict=True))
    assert right >= 18
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["student", "fp32", "bundle"])
def test_evaluate_says_what_the_report_says(story: tuple[Path, Path, str], name: str) -> None:
    recipe, run, _ = story
    ended = command("distill", "evaluate", run / name, recipe, "--json", watched=run)
    assert ended.code == 0, ended.err
    model, runtime = {"student": ("student", "torch"), "fp32": ("pruned", "onnxruntime")}.get(
        name, ("bundle", "onnxruntime")
    )
    rows = read_report(run / "report" / "report.json").quality
    wanted = next(row for row in rows if (row.model, row.runtime) == (model, runtime))
    found = json.loads(ended.out)
    assert (found["value"], found["n"]) == (wanted.value, wanted.n)


def write_pairs(path: Path, count: int) -> list[tuple[str, str, str]]:
    """Both texts praise or damn; the label is what the second one does, so the two must be told apart."""
    choose = random.Random(3)
    rows = []
    for i in range(count):
        first, second = choose.choice((POSITIVE, NEGATIVE)), (POSITIVE, NEGATIVE)[i % 2]
        texts = [" ".join([*choose.sample(FILLER, 3), choose.choice(words)]) for words in (first, second)]
        rows.append((texts[0], texts[1], "positive" if second is POSITIVE else "negative"))
    path.write_text("\n".join(["claim\tanswer\tverdict", *("\t".join(row) for row in rows)]) + "\n")
    return rows


def test_pairs_of_texts(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = write_pairs(tmp_path / "pairs.tsv", 480)
    task = {"text": "claim", "pair": "answer", "label": "verdict", "max_length": 32}
    data = {"source": "pairs.tsv", "allow_leakage": True}
    recipe = write_recipe(tmp_path, tiny_encoder, data=data, task=task, quantize=None, prune=None)
    run = tmp_path / "run"
    for words in (("distill", "teach"), ("distill", "label"), ("distill", "student"), ("compress", "export", "--onnx")):
        ended = command(*words, recipe, "-o", run, watched=run)
        assert ended.code == 0, ended.err
    model = load(run / "fp32", threads=1)
    found = model([(first, second) for first, second, _ in rows])
    right = sum(answer.label == label for answer, (_, _, label) in zip(found, rows, strict=True))
    assert right > 0.9 * len(rows)
    turned = model([(second, first) for first, second, _ in rows])
    assert sum(a.label != b.label for a, b in zip(found, turned, strict=True)) > 0.3 * len(rows)
