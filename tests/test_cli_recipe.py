"""The commands that read recipes: from `compress init` to a plan, and what they say when something does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from conftest import write_toy_csv

STEPS = ["teacher", "signals", "student", "teacher-fp32", "fp32", "bundle", "report"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy_csv(tmp_path / "reviews.csv", 120)
    return tmp_path


def test_from_a_file_to_a_plan(folder: Path) -> None:
    done = run("compress", "init", "reviews.csv", folder=folder)
    assert done.returncode == 0
    assert done.stdout == "wrote recipe.yaml; look it over, then: compress run recipe.yaml\n"
    planned = run("compress", "run", "recipe.yaml", "--dry-run", folder=folder)
    assert (planned.returncode, planned.stderr) == (0, "")
    assert planned.stdout.splitlines() == [f"runs/reviews/{step}: to do" for step in STEPS]
    assert sorted(path.name for path in folder.iterdir()) == ["recipe.yaml", "reviews.csv"]


def test_a_plan_as_json_for_another_folder_and_settings(folder: Path) -> None:
    run("compress", "init", "reviews.csv", "-o", "mine.yaml", folder=folder)
    options = ("--set", "prune.heads=0.5", "--set", "quantize=null", "-o", "elsewhere", "--json")
    done = run("compress", "run", "mine.yaml", "--dry-run", *options, folder=folder)
    assert json.loads(done.stdout) == dict.fromkeys([*STEPS[:3], "pruned", *STEPS[3:]], "to do")
    assert not (folder / "elsewhere").exists()


def test_init_does_not_replace_a_recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("mine")
    done = run("compress", "init", "reviews.csv", folder=folder)
    assert done.returncode == 2 and "recipe.yaml exists already" in done.stderr
    assert (folder / "recipe.yaml").read_text() == "mine"
    assert run("compress", "init", "reviews.csv", "--force", folder=folder).returncode == 0
    assert (folder / "recipe.yaml").read_text().startswith("# Made by `compress init`")


@pytest.mark.parametrize("name", ["no such.csv", "sub/dir/none.jsonl"])
def test_init_without_its_file(folder: Path, name: str) -> None:
    done = run("compress", "init", name, folder=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and name in done.stderr and "Traceback" not in done.stderr


def test_every_problem_of_a_recipe_at_once(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(
        "name: toy\ndata: {source: reviews.csv}\nteacher: {modle: x}\nstudent: {layer: 2}\n"
    )
    for words in (("compress", "run"), ("distill", "teach"), ("compress", "prune")):
        done = run(*words, "recipe.yaml", folder=folder)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "error: recipe.yaml has 2 problems",
            "  - teacher.modle: unknown key; did you mean model?",
            "  - student.layer: unknown key; did you mean layers?",
        ]
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("compress", "run", "none.yaml"), "cannot read the recipe none.yaml"),
        (("compress", "run", "recipe.yaml", "--set", "seed"), "--set seed: expected KEY=VALUE"),
        (("compress", "run", "recipe.yaml", "--set", "student.layer=2"), "did you mean layers?"),
        (("compress", "bench", "recipe.yaml", "--against", "openvino,nope"), "'optimum' (found 'nope')"),
        (
            ("compress", "factorise", "recipe.yaml", "--set", "factorise.energy=2"),
            "factorise.energy: Input should be less",
        ),
        (("compress", "prune", "recipe.yaml", "--dry-run"), "--dry-run goes with `compress run`"),
    ],
)
def test_mistakes(folder: Path, words: tuple[str, ...], problem: str) -> None:
    (folder / "recipe.yaml").write_text("name: toy\ndata: {source: reviews.csv}\nteacher: {model: encoder}\n")
    done = run(*words, folder=folder)
    assert done.returncode == 2
    assert problem in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "runs").exists()


def test_no_colours_where_nobody_wants_them(folder: Path) -> None:
    done = run("compress", "init", "reviews.csv", folder=folder, environment={"NO_COLOR": "1", "LC_ALL": "C"})
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
