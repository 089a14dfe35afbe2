"""Rows 6, 7 and 9: a full disk, and folders that cannot be written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_runs import Project, command, copy_steps, weights

from distill.resume import checkpoints, fault


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for one checkpoint and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"no disk may be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_row_6_a_disk_that_runs_full_while_training(project: Project, finished_run: Path, small_disk: Path) -> None:
    folder = small_disk / "run"
    words = ("distill", "teach", project.recipe, "-o", folder)
    watched = small_disk.parent / "elsewhere"
    ended = command(*words, watched=watched)
    assert ended.code == 1, ended.err
    assert "error: No space left: needs " in ended.err
    assert f"MB free in {folder}/.work-teach; make room and run the same command again" in ended.err
    assert "Traceback" not in ended.err
    assert not (folder / "teacher").exists()
    assert [fault(path) for path in checkpoints(folder / ".work-teach")] == [None], "the earlier one is intact"
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = command(*words, watched=watched)
    assert again.code == 0, again.err
    assert "going on from" in again.err
    assert weights(folder / "teacher") == weights(finished_run / "teacher")


@pytest.mark.parametrize("limit", [100_000, 200_000])
def test_row_6_a_file_that_may_not_grow(project: Project, finished_run: Path, tmp_path: Path, limit: int) -> None:
    """Where no disk may be mounted: weights (safetensors) or optimizer (torch) hit the largest allowed size."""
    folder = tmp_path / "run"
    words = ("distill", "teach", project.recipe, "-o", folder)
    ended = command(*words, watched=folder, limit=limit)
    assert ended.code == 1, ended.err
    assert "error: No space left: " in ended.err
    assert "Traceback" not in ended.err
    assert not list(folder.glob("teacher"))
    assert not list(folder.glob(".tmp-*"))
    again = command(*words, watched=folder)
    assert again.code == 0
    assert "checkpoint-7 is left out: not finished" in again.err
    assert weights(folder / "teacher") == weights(finished_run / "teacher")


def test_row_6_no_room_for_the_result(project: Project, finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    model = ("--set", f"teacher.model={finished_run / 'teacher'}", "--set", "teacher.training=null")
    words = ("distill", "teach", project.recipe, "-o", folder, *model)
    ended = command(*words, watched=folder, limit=100_000)
    assert ended.code == 1
    assert "error: No space left: " in ended.err
    assert not (folder / "teacher").exists()
    assert command(*words, watched=folder).code == 0
    assert weights(folder / "teacher") == weights(finished_run / "teacher")


def test_row_7_no_room_for_signals(project: Project, finished_run: Path, tmp_path: Path) -> None:
    folder = copy_steps(finished_run, tmp_path / "run", "teacher")
    ended = command("distill", "label", project.recipe, "-o", folder, watched=folder, limit=1200)
    assert ended.code == 1
    assert "error: No space left: " in ended.err
    assert not (folder / "signals").exists()
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize("name", ["toy.csv", "toy.csv/run", "/proc/run"])
def test_row_9_a_folder_that_cannot_be_written_is_refused_before_training(project: Project, name: str) -> None:
    watched = project.folder.parent / "nothing"
    ended = command("distill", "teach", project.recipe, "-o", project.folder / name, watched=watched)
    assert ended.code == 2
    assert "error: cannot write the run folder" in ended.err
    assert "choose another with -o" in ended.err
    assert "teach:" not in ended.err
