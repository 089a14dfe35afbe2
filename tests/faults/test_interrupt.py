"""Row 13: SIGTERM and Ctrl-C leave a checkpoint and exit 130; the same command goes on; a second one ends at once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from command_runs import Project, command, copy_steps, weights

from distill.resume import checkpoints, fault


@pytest.mark.parametrize("step", ["teach", "student"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_13_stopped_while_training_and_gone_on(
    project: Project, finished_run: Path, tmp_path: Path, step: str, number: int
) -> None:
    done = ("teacher", "signals") if step == "student" else ()
    folder = copy_steps(finished_run, tmp_path / "run", *done)
    words = ("distill", step, project.recipe, "-o", folder)
    ended = command(*words, watched=folder, strikes={"metrics.jsonl#2": number})
    assert ended.code == 130
    assert f"stopped while in {step}; run the same command again to go on" in ended.err
    assert "Traceback" not in ended.err
    newest = checkpoints(folder / f".work-{step}")[0]
    assert fault(newest) is None
    again = command(*words, watched=folder)
    assert again.code == 0
    assert f"going on from {newest}" in again.err
    result = "teacher" if step == "teach" else "student"
    assert weights(folder / result) == weights(finished_run / result)


def test_row_13_the_second_signal_ends_it_at_once(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("distill", "teach", project.recipe, "-o", folder)
    ended = command(
        *words, watched=folder, strikes={"config.json#1": signal.SIGTERM, "trainer_state.json#1": signal.SIGTERM}
    )
    assert ended.code == 130
    assert "stopped while" not in ended.err
    assert not (folder / "teacher").exists()


@pytest.mark.parametrize("at", [4, 10, 20])
def test_row_13_stopped_while_reading_and_loading(
    project: Project, finished_run: Path, tmp_path: Path, at: int
) -> None:
    folder = copy_steps(finished_run, tmp_path / "run", "teacher")
    words = ("distill", "label", project.recipe, "-o", folder)
    ended = command(*words, watched=folder, strikes={at: signal.SIGTERM})
    assert ended.code == 130
    assert ended.err.endswith("error: interrupted; run the same command again to go on\n")
    assert not (folder / "signals").exists()
    assert not list(folder.glob(".tmp-*"))
    assert command(*words, watched=folder).code == 0
