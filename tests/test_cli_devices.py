"""`--device` on the command line: the form that suits it, and what is said where one does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from command_runs import Ended, Project, command, write_project

from potstill import load

LOOSE = {"max_drop": 0.5, "margin": 0.5, "max_flips": 1.0}


@pytest.fixture
def project(tiny_checkpoint: Path, tmp_path: Path) -> Project:
    """A recipe with its data, and a checkpoint beside it."""
    made = write_project(tmp_path / "project", tiny_checkpoint, rows=400)
    made.recipe.write_text(yaml.safe_dump({**made.value(), "quantize": LOOSE}))
    return made


def export(project: Project, name: str, *options: str) -> Ended:
    """`compress export` of the checkpoint to the folder `name` beside the recipe."""
    words = ("export", "--onnx", project.folder / "encoder", "--recipe", project.recipe)
    return command("compress", *words, "-o", project.folder / name, *options, watched=project.folder)


def test_a_bundle_for_cuda_answers_here_too(project: Project) -> None:
    ended = export(project, "half", "--device", "cuda")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == f"wrote {project.folder / 'half'} (fp16)"
    assert export(project, "whole").code == 0
    answers = [load(project.folder / name).probabilities(["a good film", "bad"]) for name in ("half", "whole")]
    assert answers[0] == pytest.approx(answers[1], abs=0.01)


def test_a_bundle_for_the_processor_is_refused_by_tensorrt_with_the_way_out(project: Project) -> None:
    ended = export(project, "small", "--quantize", "int8")
    assert ended.code == 0, ended.err
    words = ("predict", project.folder / "small", "a good film", "--provider", "tensorrt")
    refused = command("compress", *words, watched=project.folder)
    assert refused.code == 2
    assert "--device tensorrt" in refused.err and "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--quantize", "int8", "--device", "cuda"), "--quantize int8 and --device cuda do not go together"),
        (("--device", "tensorrt", "--set", "quantize.methods=[fp16]"), "TensorRT reads int8 with fixed ranges alone"),
    ],
)
def test_what_does_not_go_together_makes_nothing(project: Project, options: tuple[str, ...], problem: str) -> None:
    ended = export(project, "made", *options)
    assert ended.code == 2
    assert problem in ended.err and "Traceback" not in ended.err
    assert not (project.folder / "made").exists()
