"""The shrinking, shipping and measuring steps as folders: prune, export, quantize, bench."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from bench.candidates import CHECKPOINTS, run_candidates
from bench.grid import lengths_of
from bench.measure import measure, with_peers, write_all
from bench.tasks import KINDS as BENCH_KINDS
from compress import order
from compress.pruning.step import prune_and_recover
from compress.quantization.quantize import quantize, reads_checkpoint, resolved
from distill import run
from distill.checkpoint import save
from distill.errors import GateError
from distill.recipe import PruneRecipe, QuantizeRecipe
from distill.sections import settings
from distill.steps import Manifest, Run, alone, trained
from distill.tasks import KINDS
from export.bundle import read_bundle
from export.graph import export

LOG = logging.getLogger("potstill")


def prune_step(opened: Run, recipe: PruneRecipe) -> run.Step:
    """The step that makes `pruned/`."""
    before = {"student": "student"} | ({} if recipe.targets == "references" else {"signals": "label"})
    inputs = {name: run.output_sum(opened.made(name, f"distill {by}")) for name, by in before.items()}
    given = {"seed": opened.recipe.seed, "prune": settings(recipe, opened.dataset.task.kind)}
    return opened.step("prune", "pruned", given, inputs)


def run_prune(opened: Run, recipe: PruneRecipe) -> Manifest:
    """Remove layers, heads, neurons and channels from the student and let it recover, into `pruned/`."""

    def make(folder: Path) -> Manifest:
        model, tokenizer = KINDS[opened.dataset.task.kind].load(opened.folder / "student")
        pruned = prune_and_recover(opened, model, tokenizer, recipe)
        save(pruned.model, tokenizer, opened.dataset.task, folder)
        return pruned.details

    return trained(opened, prune_step(opened, recipe), make)


def last_checkpoint(opened: Run) -> str:
    """The checkpoint that is exported: the last one that the recipe makes smaller, or the student."""
    return order.checkpoints(opened.recipe)[-1]


def export_step(opened: Run, checkpoint: str, target: str) -> run.Step:
    """The step that makes an fp32 bundle of a checkpoint."""
    made = opened.made(checkpoint, f"compress run (step {checkpoint})")
    return opened.step("export", target, opened.recipe.export.model_dump(mode="json"), {"model": run.output_sum(made)})


def run_export(opened: Run, checkpoint: str, target: str) -> Manifest:
    """Export a checkpoint as the fp32 bundle `target`, compared with torch on the test split."""

    def make(folder: Path) -> Manifest:
        settings = opened.recipe.export
        bundle = export(
            opened.folder / checkpoint,
            folder / "bundle",
            opset=settings.opset,
            atol=settings.atol,
            examples=opened.dataset.splits["test"],
        )
        details = dict(bundle.details)
        _lift(folder / "bundle")
        return details

    return alone(opened, export_step(opened, checkpoint, target), make)


def quantize_step(opened: Run, recipe: QuantizeRecipe, source: str = "fp32", target: str = "bundle") -> run.Step:
    """The step that makes an int8 bundle of an fp32 one."""
    inputs = {"fp32": run.output_sum(opened.made(source, "compress export"))}
    if reads_checkpoint(recipe):
        inputs["model"] = run.output_sum(opened.made(last_checkpoint(opened), "compress run"))
    return opened.step("quantize", target, resolved(recipe, opened.dataset.task.kind), inputs)


def run_quantize(opened: Run, recipe: QuantizeRecipe, source: str = "fp32", target: str = "bundle") -> Manifest:
    """Quantize `source` into `target` under the gate; what fails it is kept as `rejected-TARGET`.

    Raises:
        GateError: no method passes.
    """

    def make(folder: Path) -> Manifest:
        try:
            fp32, checkpoint = read_bundle(opened.folder / source), opened.folder / last_checkpoint(opened)
            bundle = quantize(fp32, folder / target, opened.dataset, recipe, checkpoint).bundle
        except GateError:
            _keep_rejected(folder, opened.folder)
            raise
        details = dict(bundle.details)
        _lift(folder / target)
        return details

    return alone(opened, quantize_step(opened, recipe, source, target), make)


def _lift(inner: Path) -> None:
    """Move what is in a folder one level up."""
    for path in inner.iterdir():
        path.rename(inner.parent / path.name)
    inner.rmdir()


def _keep_rejected(made: Path, folder: Path) -> None:
    """Keep a rejected bundle in the run's folder for people to look at."""
    for rejected in made.glob("rejected-*"):
        shutil.rmtree(folder / rejected.name, ignore_errors=True)
        rejected.rename(folder / rejected.name)


def ship_step(opened: Run) -> run.Step:
    """The step that makes `bundle/` where nothing is quantized."""
    return opened.step("ship", "bundle", {}, {"fp32": run.output_sum(opened.made("fp32", "compress export"))})


def ship_fp32(opened: Run) -> Manifest:
    """Without quantizing, `bundle/` is the fp32 bundle."""

    def make(folder: Path) -> Manifest:
        ignore = shutil.ignore_patterns(run.MANIFEST)
        shutil.copytree(opened.folder / "fp32", folder, dirs_exist_ok=True, ignore=ignore)
        return {}

    return alone(opened, ship_step(opened), make)


def bench_step(opened: Run) -> run.Step:
    """The step that makes `report/`."""
    folders = [name for name in measured(opened) if (opened.folder / name).is_dir()]
    inputs = {name: run.output_sum(opened.made(name, "compress run")) for name in folders}
    kind, bench = opened.dataset.task.kind, opened.recipe.bench
    given = {**settings(bench, kind), "lengths": list(lengths_of(bench, BENCH_KINDS[kind]))}
    return opened.step("bench", "report", given, inputs)


def measured(opened: Run) -> list[str]:
    """The folders that are this recipe's: a `pruned/` that an earlier one left is not."""
    return [*order.checkpoints(opened.recipe), "teacher-fp32", "fp32", "bundle"]


def run_bench(opened: Run) -> Manifest:
    """Measure everything in the run's folder into `report/`."""

    def make(folder: Path) -> Manifest:
        teacher = opened.folder / "teacher-fp32"
        checkpoints = [name for name in measured(opened) if name in CHECKPOINTS]
        candidates = run_candidates(opened.folder, teacher if teacher.is_dir() else None, checkpoints)
        recipe = opened.recipe
        with with_peers(candidates, recipe.bench, opened.dataset) as (together, left_out):
            report = measure(
                recipe.name, together, recipe.bench, opened.dataset, seed=recipe.seed, progress=opened.report
            )
        report = replace(report, notes=(*made_of(opened.folder / "bundle"), *report.notes, *left_out))
        write_all(report, folder)
        return {"notes": list(report.notes)}

    return alone(opened, bench_step(opened), make)


def made_of(folder: Path) -> list[str]:
    """How the bundle in a folder was quantized, what stayed float in it and why, and where its bytes are."""
    quantization = read_bundle(folder).details.get("quantization") if folder.is_dir() else None
    if quantization is None:
        return []
    before, after = quantization["bytes"]["fp32"], quantization["bytes"]["int8"]
    parts = [f"{part} {before[part] / 1e6:.2f} -> {after[part] / 1e6:.2f} MB" for part in before]
    left = [f"left float: {name}: {why}" for name, why in quantization.get("left_float", {}).items()]
    method = f"int8 {quantization['method']}: {quantization['products']}"
    return [method, *left, f"bytes, fp32 -> int8: {', '.join(parts)}"]
