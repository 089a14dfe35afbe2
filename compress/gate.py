"""May the small model replace the large one? Decided on the validation split, with what n allows to claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from distill.errors import GateError
from distill.metrics import Difference, examples_needed, paired_difference
from distill.recipe import QuantizeRecipe

State = Literal["passed", "undecided", "rejected"]
STATES: tuple[State, ...] = ("rejected", "undecided", "passed")
RULE_OF_THREE = 3.0
"""What was never seen in n examples has, at 95 %, a rate below 3 / n (Hanley and Lippman-Hand 1983)."""

ROUNDING = 1e-9
"""1.00 - 0.99 is a little more than 0.01 in binary; a limit that is met exactly is met."""


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


def decide(
    gold: ArrayLike,
    reference: ArrayLike,
    candidate: ArrayLike,
    settings: QuantizeRecipe,
    *,
    metric: str,
    num_labels: int,
    batch_flips: float = 0.0,
) -> Verdict:
    """Compare two models' labels `(n,)` on the same examples; `batch_flips` is a share of labels.

    Raises:
        DataError: no examples, or labels that do not fit.
    """
    drop = paired_difference(metric, gold, reference, candidate, num_labels)
    upper = max(drop.high, RULE_OF_THREE / drop.n)
    too_much = [*_lost(drop, settings), *_flips(batch_flips, settings)]
    unclear = _unclear(drop, upper, settings)
    state: State = "rejected" if too_much else "undecided" if unclear else "passed"
    return Verdict(state, drop, upper, batch_flips, tuple(too_much or unclear))


def _lost(drop: Difference, settings: QuantizeRecipe) -> list[str]:
    """Why the loss itself is too large."""
    if drop.value <= settings.max_drop + ROUNDING:
        return []
    interval = f"95 % interval {drop.low:+.4f} to {drop.high:+.4f}, n={drop.n}"
    over = drop.value - settings.max_drop
    return [
        f"{drop.metric} drops by {drop.value:.4f} ({interval}): {over:.4f} more than max_drop {settings.max_drop:g}"
    ]


def _flips(share: float, settings: QuantizeRecipe) -> list[str]:
    """Why the answers depend too much on their batch."""
    if share <= settings.max_flips:
        return []
    return [f"{share:.2%} of the labels depend on the rest of the batch, max_flips is {settings.max_flips:.2%}"]


def _unclear(drop: Difference, upper: float, settings: QuantizeRecipe) -> list[str]:
    """Why n is too small to tell."""
    bound = settings.max_drop + settings.margin
    if upper <= bound + ROUNDING:
        return []
    needed = needed_examples(drop, bound)
    return [
        f"undecided: n={drop.n}, need about {needed}; {drop.metric} drops by {drop.value:.4f} "
        f"(95 % interval {drop.low:+.4f} to {upper:+.4f}), allowed are max_drop {settings.max_drop:g} + "
        f"margin {settings.margin:g}; give more validation rows or widen the margin"
    ]


def needed_examples(drop: Difference, bound: float) -> int:
    """About how many examples bring the upper end of the drop's interval down to `bound`, if the rates stay.

    A bound of 0, or one that the drop itself has reached, is never met: then the examples for a hundredth of a point.
    """
    room = max(bound - drop.value, 1e-4)
    return max(examples_needed(drop.flipped / drop.n, room), int(np.ceil(RULE_OF_THREE / max(bound, 1e-4))))


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
