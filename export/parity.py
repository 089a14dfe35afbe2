"""Does the exported graph answer like the model it was made from? On real texts and on every awkward shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import RunError

Batch = Mapping[str, NDArray[np.int64]]
Forward = Callable[[Batch], NDArray[np.float32]]
BATCH = 15  # odd, so that no shape in the graph can rest on a round number


@dataclass(frozen=True)
class Place:
    """One logit: which batch and its shape, which row and label, and what both sides say."""

    batch: int
    shape: tuple[int, int]
    row: int
    label: int
    expected: float
    found: float

    def __str__(self) -> str:
        """In words."""
        where = f"row {self.row} of batch {self.batch} {self.shape}, label {self.label}"
        return f"{where}: expected {self.expected:.6g}, found {self.found:.6g}"


@dataclass(frozen=True)
class ParityResult:
    """Largest difference of a logit, share of rows with the same label, rows compared, and the worst place."""

    max_abs: float
    agreement: float
    n: int
    worst: Place

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {key: value for key, value in asdict(self).items() if key != "worst"}


def compare(reference: Forward, candidate: Forward, batches: Iterable[Batch]) -> ParityResult:
    """Run both sides on each batch; both answer logits `(rows, labels)`.

    Raises:
        ValueError: there are no batches.
    """
    places, same, rows = [], 0, 0
    for number, batch in enumerate(batches):
        expected, found = reference(batch), candidate(batch)
        places.append(_worst(number, batch["input_ids"].shape, expected, found))
        same += int((expected.argmax(-1) == found.argmax(-1)).sum())
        rows += len(expected)
    if not rows:
        raise ValueError("parity needs at least one batch")
    worst = max(places, key=_distance)
    return ParityResult(_distance(worst), same / rows, rows, worst)


def _worst(number: int, shape: Sequence[int], expected: NDArray[np.float32], found: NDArray[np.float32]) -> Place:
    """Where the two sides of one batch lie furthest apart; a NaN lies further than anything."""
    apart = np.nan_to_num(np.abs(expected - found), nan=np.inf)
    row, label = (int(i) for i in np.unravel_index(apart.argmax(), apart.shape))
    size = (int(shape[0]), int(shape[1]))
    return Place(number, size, row, label, float(expected[row, label]), float(found[row, label]))


def _distance(place: Place) -> float:
    """How far apart the two sides are there."""
    apart = abs(place.expected - place.found)
    return apart if apart == apart else float("inf")


def require(result: ParityResult, atol: float, output: str) -> None:
    """Refuse a graph whose logits are further than `atol` from the model's.

    Raises:
        RunError: naming the output, the worst place and the difference.
    """
    if not result.max_abs <= atol:
        raise RunError(
            f"the exported graph does not answer like the model: output {output!r} differs by {result.max_abs:.3g}, "
            f"allowed is {atol:g} (export.atol)",
            [str(result.worst), f"same label on {result.agreement:.2%} of {result.n} rows"],
        )


def real_batches(encode: Callable[[Sequence[Any]], Batch], texts: Sequence[Any]) -> Iterator[Batch]:
    """The texts in odd batches, in their order, so that short and long ones share a batch."""
    for start in range(0, len(texts), BATCH):
        yield encode(texts[start : start + BATCH])


def awkward_batches(rows: int, types: int, longest: int) -> Iterator[Batch]:
    """Random ids below `rows` in shapes that break graphs: one token, the longest input, odd sizes, heavy padding."""
    random = np.random.default_rng(0)
    for shape in ((1, 1), (1, longest), (3, longest), (7, max(1, longest // 2 - 1)), (2, 1)):
        lengths = random.integers(1, shape[1] + 1, (shape[0], 1))
        lengths[0] = shape[1]
        yield {
            "input_ids": random.integers(0, rows, shape),
            "attention_mask": (np.arange(shape[1]) < lengths).astype(np.int64),
            "token_type_ids": random.integers(0, types, shape),
        }
