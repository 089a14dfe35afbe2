"""The shrinking, shipping and measuring steps as folders: prune, export, quantize, bench."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from bench.candidates import CHECKPOINTS, run_candidates
from bench.grid import lengths_of
from bench.measure import measure, with_peers, write_all
from bench.tasks import KINDS
from compress.prune import Batch, importance, prune
from compress.quantize import quantize, resolved
from distill import run, signals
from distill.batches import collate, encode
from distill.checkpoint import load_model, load_tokenizer, save
from distill.errors import GateError
from distill.losses import distillation_rows
from distill.recipe import PruneRecipe, QuantizeRecipe
from distill.sections import settings
from distill.steps import Manifest, Run, alone, recover, trained
from export.bundle import read_bundle
from export.graph import export

IMPORTANCE_BATCH = 16
LOG = logging.getLogger("potstill")


def prune_step(opened: Run, recipe: PruneRecipe) -> run.Step:
    """The step that makes `pruned/`."""
    inputs = {name: run.output_sum(opened.made(name, f"distill {by}")) for name, by in _BEFORE_PRUNE}
    given = {"seed": opened.recipe.seed, "prune": settings(recipe, opened.dataset.task.kind)}
    return opened.step("prune", "pruned", given, inputs)


_BEFORE_PRUNE = (("student", "student"), ("signals", "label"))


def run_prune(opened: Run, recipe: PruneRecipe) -> Manifest:
    """Remove heads and neurons from the student and let it recover, into `pruned/`."""

    def make(folder: Path) -> Manifest:
        source = opened.folder / "student"
        model, tokenizer = load_model(source), load_tokenizer(source)
        scores = importance(model, _batches(opened, tokenizer, recipe), _row_loss(recipe))
        sizes = prune(model, scores, recipe.heads, recipe.neurons)
        result = recover(opened, model, tokenizer, recipe, "prune")
        save(model, tokenizer, opened.dataset.task, folder)
        return {**result, "layers": [asdict(size) for size in sizes]}

    return trained(opened, prune_step(opened, recipe), make)


def _batches(opened: Run, tokenizer: PreTrainedTokenizerBase, recipe: PruneRecipe) -> Iterator[Batch]:
    """Training rows with the teacher's logits, as many as importance is measured on."""
    split = opened.dataset.splits["train"]
    labels = opened.dataset.task.labels
    rows = encode(tokenizer, split, opened.dataset.task, signals.read(opened.folder / "signals").of(split.ids, labels))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(opened.recipe.seed)).tolist()
    chosen = [rows[i] for i in order[: recipe.importance_examples]]
    for start in range(0, len(chosen), IMPORTANCE_BATCH):
        opened.report("importance", min(start + IMPORTANCE_BATCH, len(chosen)), len(chosen))
        yield collate(tokenizer, chosen[start : start + IMPORTANCE_BATCH])


def _row_loss(recipe: PruneRecipe) -> Any:
    """The recovery's loss, a row."""

    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return distillation_rows(logits, batch["teacher_logits"], batch["labels"], recipe.temperature, recipe.alpha)

    return loss


def last_checkpoint(opened: Run) -> str:
    """The checkpoint that is exported: `pruned` if the recipe prunes, else `student`."""
    return "pruned" if opened.recipe.prune else "student"


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


def quantize_step(opened: Run, recipe: QuantizeRecipe) -> run.Step:
    """The step that makes the int8 `bundle/`."""
    inputs = {"fp32": run.output_sum(opened.made("fp32", "compress export"))}
    return opened.step("quantize", "bundle", resolved(recipe, opened.dataset.task.kind), inputs)


def run_quantize(opened: Run, recipe: QuantizeRecipe) -> Manifest:
    """Quantize `fp32/` into `bundle/` under the gate; what fails it is kept as `rejected-bundle/`.

    Raises:
        GateError: no method passes.
    """

    def make(folder: Path) -> Manifest:
        try:
            bundle = quantize(read_bundle(opened.folder / "fp32"), folder / "bundle", opened.dataset, recipe).bundle
        except GateError:
            _keep_rejected(folder, opened.folder)
            raise
        details = dict(bundle.details)
        _lift(folder / "bundle")
        return details

    return alone(opened, quantize_step(opened, recipe), make)


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
    given = {**settings(bench, kind), "lengths": list(lengths_of(bench, KINDS[kind]))}
    return opened.step("bench", "report", given, inputs)


def measured(opened: Run) -> list[str]:
    """The folders that are this recipe's: a `pruned/` that an earlier one left is not."""
    learned = ["teacher", "student", *(["pruned"] if opened.recipe.prune else [])]
    return [*learned, "teacher-fp32", "fp32", "bundle"]


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
