"""Two processes train one model: one result, one journal, and an end together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_runs import Ended, Project, Running, command, copy_steps, start, steps_in_journal, weights
from toy_translation import write_translation_project


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def pair(*words: str | Path, folder: Path, strikes: Mapping[int | str, int] | None = None) -> list[Running]:
    """What torchrun starts: two processes that know of each other by their environment; `strikes` hit the first."""
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        start(
            *words,
            watched=folder,
            strikes=strikes if rank == 0 else {},
            environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]


def both(*words: str | Path, folder: Path) -> list[Ended]:
    ended = [running.end() for running in pair(*words, folder=folder)]
    assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
    return ended


def test_two_processes_make_one_result(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for step, result in (("teach", "teacher"), ("label", "signals"), ("student", "student")):
        first, second = both("distill", step, project.recipe, "-o", folder, folder=folder)
        assert (folder / result / "run.json").exists()
        assert first.out.startswith(f"{step}: done")
        assert (second.out, second.err) == ("", ""), "only the first process speaks"
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "metrics.jsonl", "recipe.yaml", "signals", "student", "teacher",
    ]  # fmt: skip
    lines = steps_in_journal(folder, "teach")
    assert len(lines) == len(set(lines))
    assert max(lines)[0] == 8, "each process takes half of the batches"
    first, _ = both("distill", "teach", project.recipe, "-o", folder, folder=folder)
    assert "is up to date" in first.err


def test_two_processes_stop_at_the_same_step_and_go_on(project: Project, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    words = ("distill", "teach", project.recipe, "-o")
    both(*words, whole, folder=whole)
    running = pair(*words, folder, folder=folder, strikes={"metrics.jsonl#2": signal.SIGTERM})
    assert [one.end().code for one in running] == [130, 130]
    again, _ = both(*words, folder, folder=folder)
    assert "going on from" in again.err
    assert weights(folder / "teacher") == weights(whole / "teacher")


def together(*more: str, folder: Path, recipe: Path, strikes: Mapping[int | str, int] | None = None) -> Running:
    """A command that starts its second process itself."""
    return start(
        "distill", "teach", recipe, "-o", folder, "--set", "processes=2", *more, watched=folder, strikes=strikes
    )


def others(running: Running) -> list[int]:
    """The processes that a command started and that still run."""
    pid = running.process.pid
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if b"processes=2" in Path(f"/proc/{each}/cmdline").read_bytes()]


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_command_starts_its_other_processes_itself(project: Project, tmp_path: Path) -> None:
    launched, folder = tmp_path / "launched", tmp_path / "run"
    both("distill", "teach", project.recipe, "-o", launched, folder=launched)
    ended = together(folder=folder, recipe=project.recipe).end()
    assert ended.code == 0, ended.err
    assert ended.out.startswith("teach: done")
    assert weights(folder / "teacher") == weights(launched / "teacher")
    again = together(folder=folder, recipe=project.recipe).end()
    assert again.code == 0 and "is up to date" in again.err
    planned = together("--dry-run", folder=folder, recipe=project.recipe).end()
    assert (planned.code, planned.out) == (0, "teach: up to date\n")


def test_an_error_of_both_processes_is_told_once(project: Project, tmp_path: Path) -> None:
    ended = together("--set", "task.text=nowhere", folder=tmp_path / "run", recipe=project.recipe).end()
    assert ended.code == 2
    assert ended.err.count("error:") == 1 and "nowhere" in ended.err


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("struck", "code"), [("first", -signal.SIGKILL), ("second", 1), ("asked", 130)])
def test_row_67_the_end_of_one_process_is_the_end_of_all(
    project: Project, tmp_path: Path, struck: str, code: int
) -> None:
    folder, journal = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    long = ("--set", "teacher.training.num_train_epochs=3000")
    running = together(*long, folder=folder, recipe=project.recipe)
    running.wait_for(lambda: journal.exists() and len(journal.read_text().splitlines()) > 3, "a few steps")
    (second,) = others(running)
    target, number = {
        "first": (running.process.pid, signal.SIGKILL),
        "second": (second, signal.SIGKILL),
        "asked": (running.process.pid, signal.SIGTERM),
    }[struck]
    assert target is not None
    os.kill(target, number)
    ended = running.end()
    assert ended.code == code, ended.err
    for _ in range(1000):
        if gone(second):
            break
        time.sleep(0.02)
    assert gone(second), "nobody is left behind"
    if struck == "second":
        assert "process 1 was ended by signal 9; run the same command again to go on" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        (
            "accelerate.commands.launch",
            "--cpu",
            "--num_processes",
            "1",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
        ),
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_the_launchers_themselves(
    project: Project, finished_run: Path, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    folder = copy_steps(finished_run, tmp_path / "run", "teacher", "signals")
    words = [sys.executable, "-m", *launcher, "-m", "distill", "student", str(project.recipe), "-o", str(folder)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("student: done") == 1
    assert (folder / "student" / "run.json").exists()


def test_two_processes_translate_a_part_each(tmp_path: Path) -> None:
    label = {"beams": 2, "shard_sentences": 16, "word_logits": 4}
    project = write_translation_project(tmp_path / "toy", label=label)
    folder, alone = tmp_path / "run", tmp_path / "alone"
    for step, result in (("teach", "teacher"), ("label", "signals"), ("student", "student")):
        first, second = both("distill", step, project.recipe, "-o", folder, folder=folder)
        assert first.out.startswith(f"{step}: done")
        assert (second.out, second.err) == ("", ""), "only the first process speaks"
        assert (folder / result / "run.json").exists()
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "metrics.jsonl", "recipe.yaml", "signals", "student", "teacher",
    ]  # fmt: skip
    lines = steps_in_journal(folder, "teach")
    assert len(lines) == len(set(lines))
    copy_steps(folder, alone, "teacher")
    assert command("distill", "label", project.recipe, "-o", alone, watched=alone).code == 0
    files = [(one / "signals" / "translations.jsonl").read_bytes() for one in (folder, alone)]
    assert files[0] == files[1], "the shards are the same, whoever asks"
