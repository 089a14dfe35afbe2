"""The door for a run's folder: everything in it, and the teacher's own ONNX graph to compare with."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from bench.candidates import Candidate, from_bundle, from_checkpoint
from bench.measure import Plan, Progress, measure, silent, write_all
from distill.data import Dataset, Split
from distill.errors import CheckpointError, DataError, RunError
from distill.recipe import Recipe
from distill.report import Report
from export.graph import export

CHECKPOINTS = ("teacher", "student", "pruned")
PARITY_EXAMPLES = 64


def measure_run(
    run: Path,
    recipe: Recipe,
    dataset: Dataset,
    target: Path | None = None,
    *,
    plan: Plan | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure what the folder `run` holds and write the report into `target` (left out: `run/report`).

    The teacher is also exported, into a folder that is removed again: without its fp32 graph nobody could tell what
    distillation won from what onnxruntime won. Where that cannot be done, a note says why.

    Raises:
        DataError: the folder holds no model, or one that was trained for other labels.
        CheckpointError, BundleError, RunError: a model cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="potstill-") as scratch:
        teacher, why = _teacher_bundle(run, recipe, dataset, Path(scratch) / "teacher")
        candidates = run_candidates(run, teacher)
        if not candidates:
            raise DataError(f"{run} holds none of {', '.join([*CHECKPOINTS, 'fp32', 'bundle'])}; run the recipe first")
        report = measure(recipe.name, candidates, recipe.bench, dataset, seed=recipe.seed, plan=plan, progress=progress)
    report = replace(report, notes=(*report.notes, *why))
    write_all(report, target or run / "report")
    return report


def run_candidates(run: Path, teacher_bundle: Path | None = None) -> list[Candidate]:
    """What a run's folder holds, the teacher first.

    Read are `teacher/`, `student/`, `pruned/` (checkpoints), `fp32/` (the bundle of the last of these, so it goes by
    that one's name) and `bundle/`; `teacher_bundle` is the teacher as an fp32 bundle. What is missing is passed over,
    and so is a `bundle/` in fp32 beside `fp32/`, which is the same model.
    """
    found = [from_checkpoint(name, run / name) for name in CHECKPOINTS if (run / name).is_dir()]
    last = found[-1].model if found else "student"
    if teacher_bundle is not None:
        found.insert(1, from_bundle("teacher", teacher_bundle))
    if (run / "fp32").is_dir():
        found.append(from_bundle(last, run / "fp32"))
    if (run / "bundle").is_dir():
        shipped = from_bundle("bundle", run / "bundle")
        found += [] if shipped.precision == "fp32" and (run / "fp32").is_dir() else [shipped]
    return found


def _teacher_bundle(run: Path, recipe: Recipe, dataset: Dataset, target: Path) -> tuple[Path | None, list[str]]:
    """The teacher as a bundle, or why there is none."""
    if not (run / "teacher").is_dir():
        return None, []
    settings = recipe.export
    try:
        export(run / "teacher", target, opset=settings.opset, atol=settings.atol, examples=_some(dataset))
    except (CheckpointError, RunError) as error:
        return None, [f"the teacher was not measured in onnxruntime: {error.message}"]
    return target, []


def _some(dataset: Dataset) -> Split:
    """A few examples, on which the teacher's two forms are compared."""
    split = dataset.splits["validation"]
    pairs = None if split.pairs is None else split.pairs[:PARITY_EXAMPLES]
    return Split(split.texts[:PARITY_EXAMPLES], pairs, split.labels[:PARITY_EXAMPLES])
