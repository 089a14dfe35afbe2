"""The whole measurement on tiny models: every section filled, nothing claimed that was not measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import toy_rows

from bench.candidates import Candidate, from_bundle, from_checkpoint, run_candidates
from bench.measure import Plan, measure, measure_folders, write_all
from bench.notes import notes
from bench.tasks import KINDS
from distill.data import Dataset, Split
from distill.environment import cores
from distill.errors import DataError
from distill.recipe import BenchRecipe
from distill.report import Quality, Report, read_report
from distill.task import Task
from export.graph import export

TASK = Task("classification", ("negative", "positive"), max_length=32)
QUICK = BenchRecipe(
    batch_sizes=(1, 2), lengths=(8, 16), threads=(1,), seconds_per_cell=0.001, min_rounds=2, max_rounds=3
)


def split(count: int, seed: int) -> Split:
    rows = toy_rows(count, seed)
    return Split(tuple(text for text, _ in rows), None, tuple(TASK.labels.index(label) for _, label in rows))


def dataset(warnings: tuple[str, ...] = ()) -> Dataset:
    splits = {"train": split(40, 1), "validation": split(10, 2), "test": split(30, 3)}
    return Dataset(TASK, splits, "0" * 64, {}, warnings)


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: one checkpoint as teacher and student, and its fp32 bundle."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    folder.mkdir()
    for name in ("teacher", "student"):
        (folder / name).symlink_to(tiny_checkpoint)
    export(tiny_checkpoint, folder / "fp32", opset=20, atol=1e-4, examples=split(10, 4))
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> Report:
    return measure("toy", run_candidates(run), QUICK, dataset(("2 texts stand twice",)), seed=7)


def test_every_section_has_every_model(report: Report) -> None:
    names = ["teacher torch fp32", "student torch fp32", "student onnxruntime fp32"]
    for rows in (report.quality, report.size, report.memory):
        assert [f"{row.model} {row.runtime} {row.precision}" for row in rows] == names
    cells = [row.cell for row in report.latency if row.model == "teacher"]
    assert [cell[:4] for cell in cells] == [("ids", "cpu", 1, 1)] * 2 + [("ids", "cpu", 1, 2)] * 2 + [
        *(("text", "cpu", 1, batch) for batch in (1, 2))
    ]
    assert len(report.latency) == 3 * 6
    assert [(row.a, row.b) for row in report.parity] == [("student torch", "student onnx fp32")]


def test_layers_are_those_of_bundles(report: Report) -> None:
    assert [(row.model, row.layer) for row in report.layers] == [
        ("student", layer) for layer in ("embedding", "encoder.0", "encoder.1", "head", "rest")
    ]
    model = next(row for row in report.size if row.runtime == "onnxruntime")
    assert sum(row.bytes for row in report.layers) == model.weights_bytes
    assert {(row.batch, row.length, row.runs) for row in report.layers} == {(1, 64, QUICK.max_rounds)}


def test_rows_carry_what_they_rest_on(report: Report) -> None:
    assert all(row.n == 30 and row.signature and row.low <= row.value <= row.high for row in report.quality)
    assert all(row.runs >= 2 and row.p50_ms <= row.p95_ms <= row.p99_ms for row in report.latency)
    for row in report.latency:
        assert (row.speedup is None) == (row.model == "teacher")
        assert row.p50_low_ms is not None
    assert "seed:7" in str(report.quality[1].difference_signature)
    assert report.environment["threads"] == 1


def test_notes_begin_with_the_warnings(report: Report) -> None:
    flags = [note.startswith("WARNING") for note in report.notes]
    assert flags == sorted(flags, reverse=True)
    assert "WARNING: 2 texts stand twice" in report.notes
    text = "\n".join(report.notes)
    for said in ("always answering the commonest", "timed in turns", "fewer than 100 runs", "peak of a fresh process"):
        assert said in text


def test_all_files_are_written(report: Report, tmp_path: Path) -> None:
    write_all(report, tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "pareto.html",
        "pareto.png",
        "report.json",
        "report.md",
    ]
    assert read_report(tmp_path / "report") == report
    assert str(Path.home()) not in (tmp_path / "report" / "report.json").read_text()


def test_parts_and_progress(run: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    candidates = run_candidates(run)[:1]
    found = measure(
        "toy",
        candidates,
        QUICK,
        dataset(),
        plan=Plan(latency=False, memory=False),
        progress=lambda *step: seen.append(step),
    )
    assert (found.latency, found.memory) == ((), ())
    assert found.quality
    assert found.size
    assert seen == [("quality", 0, 1), ("quality", 1, 1)]


def test_folders_without_data(run: Path, tmp_path: Path) -> None:
    one = QUICK.model_copy(update={"batch_sizes": (1,), "lengths": (8, 64, 128), "threads": (1, "all")})
    found = measure_folders("toy", [run / "fp32"], one, tmp_path / "out", plan=Plan(memory=False))
    assert found.quality == ()
    assert {row.length for row in found.latency} == {8, 64}
    assert "length 128 left out: fp32 onnxruntime fp32 takes at most 64 tokens" in found.notes
    assert {row.threads for row in found.latency} == {1, cores()}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "report.md"]


def test_devices_that_are_not_there_are_notes(run: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    settings = QUICK.model_copy(update={"devices": ("cuda", "tensorrt"), "batch_sizes": (1,), "lengths": (8,)})
    found = measure("toy", run_candidates(run)[1:], settings, plan=Plan(memory=False))
    assert found.latency == ()
    text = "\n".join(found.notes)
    assert "cuda for torch fp32 unavailable: torch" in text
    assert "cuda for onnxruntime fp32 unavailable: no execution provider 'cuda' here; available: cpu" in text
    assert "tensorrt for torch fp32 unavailable: torch does not run on 'tensorrt'" in text


def test_models_must_be_told_apart(run: Path) -> None:
    twice = [from_checkpoint("a", run / "teacher"), from_checkpoint("a", run / "student")]
    with pytest.raises(DataError, match="a torch fp32: twice"):
        measure("toy", twice, QUICK)
    with pytest.raises(DataError, match="none given"):
        measure("toy", [], QUICK)


def test_what_a_run_holds(run: Path, tmp_path: Path) -> None:
    names = [candidate.name for candidate in run_candidates(run, run / "fp32")]
    assert names == ["teacher torch fp32", "teacher onnxruntime fp32", "student torch fp32", "student onnxruntime fp32"]
    (tmp_path / "bundle").symlink_to(run / "fp32")
    assert run_candidates(tmp_path) == [from_bundle("bundle", tmp_path / "bundle")]
    (tmp_path / "fp32").symlink_to(run / "fp32")
    assert [candidate.model for candidate in run_candidates(tmp_path)] == ["student"]
    chosen = run_candidates(run, checkpoints=["student"])  # what an earlier recipe left is passed over
    assert [candidate.name for candidate in chosen] == names[2:]
    assert run_candidates(tmp_path / "nothing") == []


ROW = Quality("student", "torch", "fp32", "test", "accuracy", 0.5, 0.33, 0.67, 30, "s")
BASELINES = [
    (0.4, 0.25, 0.58, "no more than always answering the commonest label (0.500)"),
    (0.6, 0.42, 0.75, "not shown to be above always answering the commonest label (0.500)"),
    (0.9, 0.74, 0.97, None),
]


@pytest.mark.parametrize(("value", "low", "high", "said"), BASELINES)
def test_a_model_that_learned_nothing_is_named(value: float, low: float, high: float, said: str | None) -> None:
    found = notes(
        Report("toy", quality=(replace(ROW, value=value, low=low, high=high),)),
        KINDS["classification"],
        dataset(),
        "test",
    )
    named = [note for note in found if note.startswith("WARNING: student")]
    assert bool(named) == (said is not None)
    assert said is None or said in named[0]
    assert "always answering the commonest training label scores 0.500 (accuracy, test)" in found


def test_too_few_examples_are_named() -> None:
    found = notes(
        Report("toy", quality=(ROW, replace(ROW, model="bundle", flipped=3))),
        KINDS["classification"],
        dataset(),
        "test",
    )
    assert any("30 examples cannot tell apart" in note and "about 3,842" in note for note in found)


def test_nothing_in_the_report_names_folders(report: Report, run: Path) -> None:
    from distill.report import to_json

    assert str(run) not in json.dumps(to_json(report))


def test_candidates_are_compared_with_the_first(run: Path) -> None:
    first = run_candidates(run)[-1]
    found = measure("toy", [first, from_checkpoint("student", run / "student")], QUICK, plan=Plan(memory=False))
    assert {row.baseline for row in found.latency} == {None, first.name}
    assert isinstance(first, Candidate)
