"""Which checkpoints count, which one is gone on from, and which are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distill import resume


def write_checkpoint(work: Path, step: int, best: int | None = None, sealed: bool = True) -> Path:
    folder = work / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).write_text(f"{name} {step}")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_global_step": best}))
    if sealed:
        resume.seal(folder)
    return folder


def test_a_sealed_checkpoint_is_whole(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 3)
    assert resume.fault(folder) is None
    resume.seal(folder)
    assert resume.fault(folder) is None, "the seal does not seal itself"


DAMAGES: dict[str, Callable[[Path], object]] = {
    "not finished": lambda folder: (folder / "manifest.json").unlink(),
    "not finished ": lambda folder: (folder / "manifest.json").write_text('{"model.safetensors": {"by'),
    "not finished  ": lambda folder: (folder / "manifest.json").write_text('{"model.safetensors": 3}'),
    "not finished   ": lambda folder: (folder / "manifest.json").write_text("[]"),
    "optimizer.pt is missing": lambda folder: (folder / "optimizer.pt").unlink(),
    "rng_state.pth is missing": lambda folder: (folder / "rng_state.pth").unlink(),
    "scheduler.pt is damaged (sha256 differs)": lambda folder: (folder / "scheduler.pt").write_text("scheduler.pt 4"),
    "model.safetensors is damaged (sha256 differs)": lambda folder: (folder / "model.safetensors").write_text(""),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_why_a_checkpoint_does_not_count(tmp_path: Path, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    older, folder = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    DAMAGES[reason](folder)
    assert resume.fault(folder) == reason.strip()
    assert resume.newest_complete(tmp_path) == older
    assert f"checkpoint-10 is left out: {reason.strip()}" in caplog.text
    assert not folder.exists()


def test_without_a_needed_file_even_a_sealed_one_does_not_count(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 3, sealed=False)
    (folder / "optimizer.pt").unlink()
    resume.seal(folder)
    assert resume.fault(folder) == "optimizer.pt is missing"


def test_newest_means_the_highest_step(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        write_checkpoint(tmp_path, step)
    for other in ("checkpoint-best", "checkpoint-7.tmp", "runs"):
        (tmp_path / other).mkdir()
    assert resume.newest_complete(tmp_path) == tmp_path / "checkpoint-100"
    assert [path.name for path in resume.checkpoints(tmp_path)] == ["checkpoint-100", "checkpoint-20", "checkpoint-3"]


def test_none_is_there(tmp_path: Path) -> None:
    assert resume.newest_complete(tmp_path) is None
    write_checkpoint(tmp_path, 3, sealed=False)
    assert resume.newest_complete(tmp_path) is None
    assert resume.newest_complete(tmp_path / "missing") is None


@pytest.mark.parametrize("gone", [True, False])
def test_a_checkpoint_counts_only_with_its_best(tmp_path: Path, gone: bool, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path, 1, best=1)
    best = write_checkpoint(tmp_path, 2, best=2)
    write_checkpoint(tmp_path, 3, best=2)
    assert resume.newest_complete(tmp_path) == tmp_path / "checkpoint-3"
    shutil.rmtree(best) if gone else (best / "model.safetensors").write_text("x")
    assert resume.newest_complete(tmp_path) == tmp_path / "checkpoint-1"
    assert "checkpoint-3 is left out: its best checkpoint checkpoint-2" in caplog.text


ROTATIONS = [
    # steps there, limit, best -> steps kept
    ([1], 1, None, [1]),
    ([1, 2, 3], 1, None, [3]),
    ([1, 2, 3], 2, None, [2, 3]),
    ([1, 2, 3], 1, 1, [1, 3]),
    ([1, 2, 3], 2, 1, [1, 3]),
    ([1, 2, 3], 2, 3, [2, 3]),
    ([1, 2, 3, 10], 3, 1, [1, 3, 10]),
    ([2, 9, 10], 5, 2, [2, 9, 10]),
]


@pytest.mark.parametrize(("there", "limit", "best", "kept"), ROTATIONS)
def test_rotation_goes_by_steps(
    tmp_path: Path, there: list[int], limit: int, best: int | None, kept: list[int]
) -> None:
    for step in reversed(there):
        write_checkpoint(tmp_path, step)
    resume.rotate(tmp_path, limit, best)
    assert sorted(int(path.name.rpartition("-")[2]) for path in resume.checkpoints(tmp_path)) == kept
