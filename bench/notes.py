"""What has to be said with the numbers: warnings first, then how they were made."""

from __future__ import annotations

from bench.quality import BATCH_SIZE
from bench.tasks import Kind
from bench.words import WARNING
from distill.data import Dataset
from distill.report import Report

FEW_RUNS = 100


def notes(report: Report, kind: Kind, dataset: Dataset | None, split: str) -> tuple[str, ...]:
    """Everything that somebody who quotes this report should know."""
    said = [WARNING + text for text in dataset.warnings] if dataset else []
    if dataset and report.quality:
        said += kind.notes(report.quality, dataset, split)
    found = [*said, *_machine(report), *_method(report, kind)]
    return tuple(sorted(dict.fromkeys(found), key=lambda note: not note.startswith(WARNING)))


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


def _method(report: Report, kind: Kind) -> list[str]:
    """How the numbers were made."""
    found = []
    if any(row.method == "dynamic" for row in report.quality):
        found.append(
            f"dynamic int8 answers depend a little on what else is in a batch; scored in batches of {BATCH_SIZE}"
        )
    if report.latency:
        found += _timing(report, kind)
    if report.memory:
        found.append("memory is the peak of a fresh process, Python and libraries included; load time is one load")
    return found


def _timing(report: Report, kind: Kind) -> list[str]:
    """How the times were taken."""
    found = [
        "all models of a cell were timed in turns, in changing order, in one process, after a warm-up; intervals are "
        "over rounds of this one process, and another process may lie a few percent beside them",
        kind.timing,
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
