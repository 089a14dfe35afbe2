"""Rows 1, 2, 5, 7, 10, 11, 12: `kill -9` anywhere, and the same command again ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_runs import Ended, Project, command, copy_steps, start, steps_in_journal, weights

RESULTS = {"teach": "teacher", "label": "signals", "student": "student"}
NEEDED = {"teach": (), "label": ("teacher",), "student": ("teacher", "signals")}


def same_result(step: str, folder: Path, finished: Path) -> bool:
    """Whether a step made the same files as without incident."""
    made, expected = (json.loads((run / RESULTS[step] / "run.json").read_text())["files"] for run in (folder, finished))
    return bool(made == expected)


def no_leftovers(folder: Path) -> bool:
    return not [path.name for path in folder.iterdir() if path.name.startswith((".tmp-", ".work-", ".old-", ".lock."))]


def kill(step: str, project: Project, folder: Path, at: int) -> Ended:
    ended = command("distill", step, project.recipe, "-o", folder, watched=folder, strikes={at: signal.SIGKILL})
    assert ended.code in (0, -signal.SIGKILL), ended.err
    return ended


@pytest.mark.parametrize(("step", "kills"), [("teach", 6), ("label", 3), ("student", 5)])
def test_rows_1_and_2_killed_at_random_operations(
    project: Project, finished_run: Path, tmp_path: Path, step: str, kills: int
) -> None:
    folder = copy_steps(finished_run, tmp_path / "run", *NEEDED[step])
    choose = random.Random(step)
    most = {"teach": 100, "label": 40, "student": 110}[step]
    codes = [kill(step, project, folder, choose.randint(8, most)).code for _ in range(kills)]
    assert -signal.SIGKILL in codes
    ended = command("distill", step, project.recipe, "-o", folder, watched=folder)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert same_result(step, folder, finished_run)
    assert no_leftovers(folder)
    if step != "label":
        lines = steps_in_journal(folder, step)
        assert len(lines) == len(set(lines))


@pytest.mark.slow
@pytest.mark.parametrize("step", ["teach", "student"])
def test_row_2_killed_forty_times_at_random_moments(
    project: Project, finished_run: Path, tmp_path: Path, step: str
) -> None:
    choose = random.Random(2)
    for number in range(40):
        folder = tmp_path / f"run-{number}"
        copy_steps(finished_run, folder, *NEEDED[step])
        for _ in range(choose.randint(1, 3)):
            running = start("distill", step, project.recipe, "-o", folder, watched=folder)
            time.sleep(choose.uniform(0.2, 2.0))
            running.process.kill()
            assert running.end().code in (0, -signal.SIGKILL)
        ended = command("distill", step, project.recipe, "-o", folder, watched=folder)
        assert ended.code == 0, ended.err
        assert same_result(step, folder, finished_run)
        assert no_leftovers(folder)
        shutil.rmtree(folder)


def test_row_2_a_fresh_interpreter_killed_from_outside(project: Project, finished_run: Path, tmp_path: Path) -> None:
    """The same once more without the fork server: the command as a user starts it."""
    folder = tmp_path / "run"
    words = [sys.executable, "-m", "distill", "teach", str(project.recipe), "-o", str(folder)]
    with subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(folder.glob(".work-teach/checkpoint-*")):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode in (0, -signal.SIGKILL)
    ended = command("distill", "teach", project.recipe, "-o", folder, watched=folder)
    assert ended.code == 0, ended.err
    assert weights(folder / "teacher") == weights(finished_run / "teacher")


def test_row_5_finished_steps_are_not_repeated(project: Project, finished_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run, tmp_path / "run")
    before = {name: (folder / name / "run.json").read_text() for name in RESULTS.values()}
    for step in RESULTS:
        ended = command("distill", step, project.recipe, "-o", folder, watched=folder)
        assert ended.code == 0
        assert f"{folder / RESULTS[step]} is up to date" in ended.err
    assert {name: (folder / name / "run.json").read_text() for name in RESULTS.values()} == before


def test_row_5_killed_after_the_result_has_its_name(project: Project, finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    operations = command("distill", "teach", project.recipe, "-o", folder, watched=folder).operations
    shutil.rmtree(folder)
    named = None
    for back in range(1, 40, 6):
        kill("teach", project, folder, operations - back)
        if (folder / "teacher").exists():
            named = (folder / "teacher" / "run.json").read_text()
            break
    assert command("distill", "teach", project.recipe, "-o", folder, watched=folder).code == 0
    assert named in (None, (folder / "teacher" / "run.json").read_text())
    assert same_result("teach", folder, finished_run)
    assert no_leftovers(folder)


def test_row_8_killed_while_force_redoes_a_step(project: Project, finished_run: Path, tmp_path: Path) -> None:
    folder = copy_steps(finished_run, tmp_path / "run", "teacher")
    words = ("distill", "teach", project.recipe, "-o", folder, "--set", "teacher.training.learning_rate=0.001")
    refused = command(*words, watched=folder)
    assert refused.code == 2
    assert "teacher.training.learning_rate: was 0.005, is 0.001" in refused.err
    assert "-o, or --force" in refused.err
    for at in (30, 60, 90):
        assert command(*words, "--force", watched=folder, strikes={at: signal.SIGKILL}).code == -signal.SIGKILL
        assert weights(folder / "teacher") == weights(finished_run / "teacher")
    again = command("distill", "teach", project.recipe, "-o", folder, watched=folder)
    assert "is up to date" in again.err, "the old result still stands"
    assert command(*words, "--force", watched=folder).code == 0
    assert weights(folder / "teacher") != weights(finished_run / "teacher")


def test_row_11_checkpoints_of_another_recipe_are_not_gone_on_from(
    project: Project, finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert kill("teach", project, folder, 95).code == -signal.SIGKILL
    assert list(folder.glob(".work-teach/checkpoint-*"))
    words = ("distill", "teach", project.recipe, "-o", folder, "--set", "seed=43")
    refused = command(*words, watched=folder)
    assert refused.code == 2
    assert "seed: was 42, is 43" in refused.err
    assert "--force" in refused.err
    assert command(*words, "--force", watched=folder).code == 0
    assert weights(folder / "teacher") != weights(finished_run / "teacher")


def test_row_12_data_edited_between_two_steps(project: Project, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(project.folder, tmp_path / "toy")
    folder = copy_steps(finished_run, tmp_path / "run", "teacher")
    with (tmp_path / "toy" / "toy.csv").open("a") as file:
        file.write("one more row of a lovely film,positive\n")
    ended = command("distill", "teach", tmp_path / "toy" / "recipe.yaml", "-o", folder, watched=folder)
    assert ended.code == 2
    assert "inputs.data: was" in ended.err


def test_row_51_signals_of_another_teacher_are_refused(project: Project, finished_run: Path, tmp_path: Path) -> None:
    folder = copy_steps(finished_run, tmp_path / "run", "signals", "student")
    shutil.copytree(finished_run / "teacher", folder / "teacher")
    manifest = json.loads((folder / "teacher" / "run.json").read_text())
    (folder / "teacher" / "config.json").write_text((folder / "teacher" / "config.json").read_text() + "\n")
    manifest["files"].pop("config.json")
    (folder / "teacher" / "run.json").write_text(json.dumps(manifest))
    for step in ("label", "student"):
        ended = command("distill", step, project.recipe, "-o", folder, watched=folder)
        assert ended.code == 2
        assert "inputs.teacher: was" in ended.err


def test_row_10_a_second_command_in_the_same_folder(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = start("distill", "teach", project.recipe, "-o", folder, watched=folder, strikes={25: signal.SIGSTOP})
    first.wait_for(lambda: (folder / ".lock.json").exists(), "the lock")
    second = command("distill", "teach", project.recipe, "-o", folder, watched=folder)
    assert second.code == 1
    assert f"in use by pid {first.process.pid} on" in second.err
    first.process.kill()
    first.end()


def test_row_8_a_folder_with_something_else(project: Project, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("important")
    ended = command("distill", "teach", project.recipe, "-o", tmp_path / "run", watched=tmp_path / "run")
    assert ended.code == 2
    assert "holds something else than a run" in ended.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_dry_run_writes_nothing(project: Project, tmp_path: Path) -> None:
    ended = command("distill", "teach", project.recipe, "-o", tmp_path / "run", "--dry-run", watched=tmp_path / "run")
    assert (ended.code, ended.out) == (0, "teach: would run\n")
    assert not (tmp_path / "run").exists()


def test_stderr_has_no_bars_of_other_libraries(project: Project, finished_run: Path) -> None:
    said = (finished_run.parent / "run-0.err").read_text()
    assert "teach: 14 of 14" in said
    assert "Writing model shards" not in said
    assert "\r" not in said
    assert "\x1b" not in said


def test_compress_run_killed_while_pruning_and_exporting(project: Project, finished_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run, tmp_path / "run")
    words = ("compress", "run", project.recipe, "-o", folder)
    assert command(*words, watched=folder, strikes={90: signal.SIGKILL}).code == -signal.SIGKILL
    assert not (folder / "pruned").exists()
    full = command(*words, watched=folder, limit=120_000)
    assert full.code == 1, full.err
    assert "No space left" in full.err
    assert not list(folder.glob("*fp32"))
    running = start(*words, watched=folder)
    running.wait_for(lambda: (folder / "teacher-fp32").exists(), "the teacher's graph")
    running.process.kill()
    running.end()
    before = {path: path.read_text() for path in folder.glob("*/run.json")}
    assert folder / "pruned" / "run.json" in before
    running = start(*words, watched=folder)
    running.wait_for(lambda: (folder / "bundle").exists(), "the bundle")
    running.process.kill()
    running.end()
    assert {path: path.read_text() for path in before} == before
    assert weights(folder / "student") == weights(finished_run / "student")


@pytest.mark.slow
def test_compress_run_killed_at_random_operations(project: Project, finished_run: Path, tmp_path: Path) -> None:
    words = ("compress", "run", project.recipe, "-o")
    whole, folder = (shutil.copytree(finished_run, tmp_path / name) for name in ("whole", "run"))
    operations = command(*words, whole, watched=whole).operations
    choose = random.Random(5)
    for _ in range(8):
        strikes = {choose.randint(30, operations): signal.SIGKILL}
        assert command(*words, folder, watched=folder, strikes=strikes).code in (0, -signal.SIGKILL)
    ended = command(*words, folder, watched=folder)
    assert ended.code == 0, ended.err
    for name in ("pruned", "teacher-fp32", "fp32", "bundle"):
        made, expected = (json.loads((run / name / "run.json").read_text())["files"] for run in (folder, whole))
        assert (
            made["model.safetensors" if name == "pruned" else "onnx/model.onnx"]
            == expected["model.safetensors" if name == "pruned" else "onnx/model.onnx"]
        )
    assert no_leftovers(folder)
