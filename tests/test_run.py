"""A run folder has one holder; a step is whole, of these settings and inputs, or it is refused or redone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill import files, run
from distill.errors import RecipeError, RunError

pytestmark = pytest.mark.runtime


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def step(tmp_path: Path) -> run.Step:
    settings = {"seed": 42, "teacher": {"model": "encoder", "training": {"learning_rate": 0.1, "epochs": 3}}}
    return run.Step("teach", tmp_path / "teacher", settings, {"data": "d" * 64})


def make(folder: Path) -> Mapping[str, Any]:
    (folder / "sub").mkdir()
    (folder / "weights").write_text("first")
    (folder / "sub" / "more").write_text("1")
    return {"best": 0.5}


def never(folder: Path) -> Mapping[str, Any]:
    raise AssertionError("must not run again")


def test_a_step_leaves_a_manifest_of_all_it_wrote(step: run.Step) -> None:
    value = run.run_step(step, make)
    assert value == run.manifest(step.folder) == files.read_json(step.folder / "run.json")
    assert value["result"] == {"best": 0.5}
    assert value["fingerprint"] == step.fingerprint
    assert sorted(value["files"]) == ["sub/more", "weights"]
    assert value["files"]["weights"] == {"bytes": 5, "sha256": files.sha256(step.folder / "weights")}
    assert {"started", "seconds", "versions", "step", "format"} <= set(value)
    assert not run.damaged(step.folder, value)


def test_row_5_a_finished_step_is_not_repeated(step: run.Step) -> None:
    assert not run.is_done(step)
    first = run.run_step(step, make)
    assert run.run_step(step, never) == first
    assert run.run_step(step, never, force=True) == first, "--force redoes only what does not fit"


def test_a_step_that_fails_leaves_nothing(step: run.Step) -> None:
    with pytest.raises(AssertionError):
        run.run_step(step, never)
    assert not names(step.folder.parent)


RATE = {"learning_rate": 0.1, "epochs": 3}
OTHERS: dict[str, Any] = {
    "teacher.training.learning_rate: was 0.1, is 0.2": {"model": "encoder", "training": RATE | {"learning_rate": 0.2}},
    'teacher.model: was "encoder", is "other"': {"model": "other", "training": RATE},
    "teacher.training.new: was null, is 1": {"model": "encoder", "training": RATE | {"new": 1}},
    "teacher.training.epochs: was 3, is null": {"model": "encoder", "training": {"learning_rate": 0.1}},
}


@pytest.mark.parametrize("line", OTHERS)
def test_row_11_other_settings_are_refused_and_named(step: run.Step, line: str) -> None:
    run.run_step(step, make)
    other = replace(step, settings={"seed": 42, "teacher": OTHERS[line]})
    with pytest.raises(RecipeError, match="other settings; choose another folder with -o, or --force") as error:
        run.run_step(other, never)
    assert error.value.exit_code == 2
    assert error.value.problems == (line,)


def test_row_12_other_inputs_are_refused(step: run.Step) -> None:
    run.run_step(step, make)
    with pytest.raises(RecipeError) as error:
        run.run_step(replace(step, inputs={"data": "e" * 64}), never)
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith('inputs.data: was "ddd')


def test_row_8_force_keeps_the_old_result_until_the_new_one_is_whole(step: run.Step) -> None:
    run.run_step(step, make)
    other = replace(step, inputs={"data": "e" * 64})

    def fails(folder: Path) -> Mapping[str, Any]:
        assert (step.folder / "weights").read_text() == "first"
        raise RunError("NaN")

    def again(folder: Path) -> Mapping[str, Any]:
        (folder / "weights").write_text("second")
        return {}

    with pytest.raises(RunError):
        run.run_step(other, fails, force=True)
    assert run.is_done(step)
    run.run_step(other, again, force=True)
    assert run.is_done(other)
    assert (step.folder / "weights").read_text() == "second"
    assert names(step.folder.parent) == ["teacher"]


def test_row_8_a_folder_that_is_no_step_is_refused(step: run.Step) -> None:
    step.folder.mkdir()
    (step.folder / "thesis.tex").write_text("important")
    with pytest.raises(RecipeError, match="is not a finished teach step; choose another -o, or --force"):
        run.run_step(step, never)
    assert (step.folder / "thesis.tex").read_text() == "important"


def test_a_damaged_result_is_refused_and_named(step: run.Step) -> None:
    value = run.run_step(step, make)
    (step.folder / "weights").write_text("fIrst")
    assert run.damaged(step.folder, value) == ["weights"]
    with pytest.raises(RecipeError, match="is damaged") as error:
        run.run_step(step, never)
    assert error.value.problems == ("weights",)
    assert run.run_step(step, make, force=True)["files"] == value["files"]


MANIFESTS = [
    b"",
    b"{",
    b"[]",
    b'{"files": 3}',
    b'{"files": {"weights": {"bytes": 4}}}',
    b"\xff",
    b'{"files": {"no": {}}}',
]


@pytest.mark.parametrize("content", MANIFESTS)
def test_a_manifest_that_cannot_be_read_is_no_manifest(step: run.Step, content: bytes) -> None:
    run.run_step(step, make)
    (step.folder / "run.json").write_bytes(content)
    assert run.manifest(step.folder) is None
    with pytest.raises(RecipeError, match="is not a finished teach step"):
        run.is_done(step)


def test_a_missing_or_shorter_file_makes_a_step_unfinished(step: run.Step) -> None:
    run.run_step(step, make)
    (step.folder / "sub" / "more").unlink()
    assert run.manifest(step.folder) is None


def test_the_sum_of_a_step_is_that_of_its_files_alone(step: run.Step) -> None:
    first = run.run_step(step, make)
    assert run.output_sum(first) == run.output_sum({**first, "seconds": 99})
    changed = json.loads(json.dumps(first))
    changed["files"]["weights"]["sha256"] = "0" * 64
    assert run.output_sum(first) != run.output_sum(changed)


def test_row_10_a_folder_has_one_holder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "toy"
    with run.lock(folder):
        with (
            pytest.raises(RunError, match=rf"in use by pid {os.getpid()} on .* since \d{{4}}-") as error,
            run.lock(folder),
        ):
            raise AssertionError
        assert error.value.exit_code == 1
    with run.lock(folder):
        pass
    assert names(folder) == [".lock"]


def test_the_lock_clears_up_after_the_dead(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".lock.json").write_text("half")
    (tmp_path / f".tmp-{os.getpid()}-0").mkdir()
    with run.lock(tmp_path):
        assert not list(tmp_path.glob(".tmp-*"))


def test_row_8_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with (
        pytest.raises(RecipeError, match="holds something else than a run; choose another -o, or --force") as error,
        run.lock(tmp_path),
    ):
        raise AssertionError
    assert error.value.exit_code == 2
    assert names(tmp_path) == ["photos"]
    with run.lock(tmp_path, force=True):
        pass
    with run.lock(tmp_path):
        pass


def test_a_run_folder_that_was_copied_without_its_hidden_files_is_one(step: run.Step) -> None:
    run.run_step(step, make)
    with run.lock(step.folder.parent):
        pass


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nothing"])
def test_row_9_a_folder_that_cannot_be_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(RecipeError, match="cannot write the run folder") as error, run.lock(tmp_path / name):
        raise AssertionError
    assert error.value.exit_code == 2
    assert (tmp_path / "file").read_text() == "text"
