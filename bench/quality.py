"""What quality rows of all kinds of task share: scores, differences to the first model, which form came of which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from bench.candidates import Candidate
from bench.words import WARNING
from distill.metrics import Difference, Score
from distill.rows import Quality

BATCH_SIZE = 32


class Answered(Protocol):
    """What one model answered to the texts of a split."""

    @property
    def candidate(self) -> Candidate:
        """Who answered."""


Answers = TypeVar("Answers", bound=Answered)


def quality_row(candidate: Candidate, split: str, found: Score) -> Quality:
    """One model's score."""
    return Quality(
        model=candidate.model,
        runtime=candidate.runtime,
        precision=candidate.precision,
        method=candidate.method,
        split=split,
        metric=found.metric,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        signature=found.signature,
    )


def with_difference(row: Quality, baseline: Candidate, found: Difference) -> Quality:
    """The row with its difference to the baseline."""
    return replace(
        row,
        baseline=baseline.name,
        difference=found.value,
        difference_low=found.low,
        difference_high=found.high,
        flipped=found.flipped,
        difference_signature=found.signature,
    )


def origins(answers: Sequence[Answers]) -> list[tuple[Answers, Answers]]:
    """Each form of a model behind the one it was made from: torch, onnxruntime fp32; fp32, int8."""
    return [(source, own) for own in answers if (source := _source(own, answers)) is not None]


def _source(own: Answers, answers: Sequence[Answers]) -> Answers | None:
    """What this form was made from: for fp32 graphs the checkpoint, for int8 graphs the last fp32 graph before it."""
    before = list(answers[: answers.index(own)]) if own in answers else []
    if own.candidate.runtime == "torch":
        return None
    if own.candidate.precision == "fp32":
        same = [each for each in before if each.candidate.model == own.candidate.model]
        return next((each for each in same if each.candidate.runtime == "torch"), None)
    graphs = [each for each in before if (each.candidate.runtime, each.candidate.precision) == ("onnxruntime", "fp32")]
    return graphs[-1] if graphs else None


def form(candidate: Candidate) -> str:
    """A model's form in one line: "student torch", "student onnx fp32", "bundle onnx int8 static"."""
    if candidate.runtime == "torch":
        return f"{candidate.model} torch"
    runtime = "onnx" if candidate.runtime == "onnxruntime" else candidate.runtime
    return " ".join(filter(None, [candidate.model, runtime, candidate.precision, candidate.method]))


def warnings_below(rows: Sequence[Quality], baseline: float, doing: str) -> list[str]:
    """A warning for each model that has not shown that it learned anything; `doing` is what the baseline does."""
    found = []
    for row in rows:
        what = f"{WARNING}{row.model} ({row.runtime} {row.precision}) scores {row.value:.3f}"
        if row.value <= baseline:
            found.append(f"{what}, no more than {doing} ({baseline:.3f}): it learned nothing")
        elif row.low <= baseline:
            found.append(f"{what}, not shown to be above {doing} ({baseline:.3f})")
    return found
