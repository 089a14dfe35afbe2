"""May the small model replace the large one? Decided on the validation split, with what n allows to claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from distill.errors import GateError
from distill.metrics import Difference, examples_needed
from distill.recipe import QuantizeRecipe
from distill.task import highest

State = Literal["passed", "undecided", "rejected"]
STATES: tuple[State, ...] = ("rejected", "undecided", "passed")
RULE_OF_THREE = 3.0
"""What was never seen in n examples has, at 95 %, a rate below 3 / n (Hanley and Lippman-Hand 1983)."""

ROUNDING = 1e-9
"""1.00 - 0.99 is a little more than 0.01 in binary; a limit that is met exactly is met."""


@dataclass(frozen=True)
class Limits:
    """What may be lost: points of the metric in its own unit, and answers that depend on the rest of their batch."""

    max_drop: float
    margin: float
    max_flips: float


DEFAULTS: Mapping[str, Limits] = MappingProxyType(
    {
        "classification": Limits(0.01, 0.02, 0.02),
        "translation": Limits(0.3, 0.7, 1.0),  # another word for the same thing is no fault: they are counted only
    }
)
"""For each kind of task: one point of accuracy that may be three, 0.3 BLEU that may be 1."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says and why. `drop` is the metric of the reference minus that of the candidate."""

    state: State
    drop: Difference
    upper: float
    """How large the drop may be: the upper end of its 95 % interval, and never below the rule of three."""
    batch_flips: float
    reasons: tuple[str, ...]

    @property
    def rank(self) -> int:
        """The better the state, the higher."""
        return STATES.index(self.state)

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return {
            "state": self.state,
            "drop": asdict(self.drop),
            "upper": self.upper,
            "batch_flips": self.batch_flips,
            "reasons": list(self.reasons),
        }


def limits(settings: QuantizeRecipe, kind: str) -> Limits:
    """What a recipe allows for a kind of task; what it leaves out is as that kind has it."""
    given = {name: getattr(settings, name) for name in DEFAULTS[kind].__dataclass_fields__}
    return replace(DEFAULTS[kind], **{name: value for name, value in given.items() if value is not None})


def decide(drop: Difference, allowed: Limits, batch_flips: float = 0.0) -> Verdict:
    """Judge what a candidate loses; `batch_flips` is the share of its answers that depend on the rest of the batch."""
    upper = max(drop.high, _unseen(drop))
    too_much = [*_lost(drop, allowed), *_flips(batch_flips, allowed)]
    unclear = _unclear(drop, upper, allowed)
    state: State = "rejected" if too_much else "undecided" if unclear else "passed"
    return Verdict(state, drop, upper, batch_flips, tuple(too_much or unclear))


def _unseen(drop: Difference) -> float:
    """What may be lost to faults that none of the examples shows."""
    return highest(drop.metric) * RULE_OF_THREE / drop.n


def _lost(drop: Difference, allowed: Limits) -> list[str]:
    """Why the loss itself is too large."""
    if drop.value <= allowed.max_drop + ROUNDING:
        return []
    interval = f"95 % interval {drop.low:+.4f} to {drop.high:+.4f}, n={drop.n}"
    over = drop.value - allowed.max_drop
    return [f"{drop.metric} drops by {drop.value:.4f} ({interval}): {over:.4f} more than max_drop {allowed.max_drop:g}"]


def _flips(share: float, allowed: Limits) -> list[str]:
    """Why the answers depend too much on their batch."""
    if share <= allowed.max_flips:
        return []
    return [f"{share:.2%} of the answers depend on the rest of the batch, max_flips is {allowed.max_flips:.2%}"]


def _unclear(drop: Difference, upper: float, allowed: Limits) -> list[str]:
    """Why n is too small to tell."""
    bound = allowed.max_drop + allowed.margin
    if upper <= bound + ROUNDING:
        return []
    needed = needed_examples(drop, bound)
    return [
        f"undecided: n={drop.n}, need about {needed}; {drop.metric} drops by {drop.value:.4f} "
        f"(95 % interval {drop.low:+.4f} to {upper:+.4f}), allowed are max_drop {allowed.max_drop:g} + "
        f"margin {allowed.margin:g}; give more validation rows or widen the margin"
    ]


def needed_examples(drop: Difference, bound: float) -> int:
    """About how many examples bring the upper end of the drop's interval down to `bound`, if the rates stay.

    A bound of 0, or one that the drop itself has reached, is never met: then the examples for a hundredth of a point.
    """
    unit = highest(drop.metric)
    room = max(bound - drop.value, 1e-4 * unit)
    unseen = int(np.ceil(unit * RULE_OF_THREE / max(bound, 1e-4 * unit)))
    if unit == 1:
        return max(examples_needed(drop.flipped / drop.n, room), unseen)
    return max(int(np.ceil(drop.n * ((drop.high - drop.value) / room) ** 2)), unseen)


def require(passed: bool, verdicts: Sequence[tuple[str, Verdict]], kept: str) -> None:
    """Stop where nothing passed.

    Raises:
        GateError: with every method's reasons, and where the best of them was kept.
    """
    if passed:
        return
    problems = [f"{name}: {reason}" for name, verdict in verdicts for reason in verdict.reasons]
    states = " or ".join(sorted({verdict.state for _, verdict in verdicts}))
    raise GateError(f"no int8 model passed the gate ({states}); the best of them is kept in {kept}", problems)
