"""What has to be said with the numbers: warnings first, then how they were made."""

from __future__ import annotations

from bench.quality import BATCH_SIZE
from distill.data import Dataset
from distill.metrics import examples_needed, majority_baseline
from distill.report import Quality, Report

WARNING = "WARNING: "
FEW_RUNS = 100


def notes(report: Report, dataset: Dataset | None, split: str) -> tuple[str, ...]:
    """Everything that somebody who quotes this report should know."""
    found = [*(_data_notes(report, dataset, split) if dataset else []), *_machine(report), *_method(report)]
    return tuple(sorted(dict.fromkeys(found), key=lambda note: not note.startswith(WARNING)))


def _data_notes(report: Report, dataset: Dataset, split: str) -> list[str]:
    """What the data say about the scores."""
    warnings = [WARNING + text for text in dataset.warnings]
    if not report.quality:
        return warnings
    baseline = majority_baseline(
        dataset.splits["train"].labels, dataset.splits[split].labels, dataset.task.metric, dataset.task.num_labels
    )
    said = f"always answering the commonest training label scores {baseline:.3f} ({dataset.task.metric}, {split})"
    return [*_below(report.quality, baseline), *warnings, said, *_resolution(report.quality)]


def _below(rows: tuple[Quality, ...], baseline: float) -> list[str]:
    """A warning for each model that has not shown that it learned anything."""
    found = []
    for row in rows:
        what = f"{WARNING}{row.model} ({row.runtime} {row.precision}) scores {row.value:.3f}"
        if row.value <= baseline:
            found.append(
                f"{what}, no more than always answering the commonest label ({baseline:.3f}): it learned nothing"
            )
        elif row.low <= baseline:
            found.append(f"{what}, not shown to be above always answering the commonest label ({baseline:.3f})")
    return found


def _resolution(rows: tuple[Quality, ...]) -> list[str]:
    """How many examples it would take to see a difference of one point."""
    flipped = max((row.flipped / row.n for row in rows if row.flipped), default=0.0)
    needed = examples_needed(flipped, 0.01)
    if not flipped or needed <= rows[0].n:
        return []
    return [
        f"{rows[0].n} examples cannot tell apart models that differ by one point: with {flipped:.1%} of the labels "
        f"flipped that takes about {needed:,}"
    ]


def _machine(report: Report) -> list[str]:
    """What the machine did to the times."""
    busy = sum(row.reason is not None for row in report.latency)
    found = []
    if busy:
        found.append(
            f"{WARNING}{busy} of {len(report.latency)} latencies were taken while other processes used the cores: they "
            "are shown but not judged; measure again on a quiet machine"
        )
    if report.latency and report.environment.get("virtual"):
        found.append("measured on a virtual machine, whose neighbours may take time from it")
    return found


def _method(report: Report) -> list[str]:
    """How the numbers were made."""
    found = []
    if any(row.method == "dynamic" for row in report.quality):
        found.append(
            f"dynamic int8 answers depend a little on what else is in a batch; scored in batches of {BATCH_SIZE}"
        )
    if report.latency:
        found += _timing(report)
    if report.memory:
        found.append("memory is the peak of a fresh process, Python and libraries included; load time is one load")
    return found


def _timing(report: Report) -> list[str]:
    """How the times were taken."""
    found = [
        "all models of a cell were timed in turns, in changing order, in one process, after a warm-up; intervals are "
        "over rounds of this one process, and another process may lie a few percent beside them",
        "batches are fixed, made of real token ids without padding; `text` rows answer one real text a run, tokenizer "
        "included",
    ]
    if any(row.threads > 1 for row in report.latency):
        found.append(
            "with more than one thread onnxruntime's were told not to spin between runs: they would take the cores "
            "from the model whose turn is next"
        )
    few = sum(row.runs < FEW_RUNS for row in report.latency)
    if few:
        found.append(
            f"{few} of {len(report.latency)} rows rest on fewer than {FEW_RUNS} runs: "
            "their p99 is about their slowest run"
        )
    return found
