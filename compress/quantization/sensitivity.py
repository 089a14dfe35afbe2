"""What int8 does to each product of a model, found in one pass over some texts, with nothing quantized.

Each product's input and weight are rounded as int8 would round them, and what comes out is compared with the exact
product of the same input. So an error is the product's own, not what those before it hand on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from compress.quantization.operators import LARGEST, MOST, rounded
from compress.quantization.ranges import AROUND_ZERO, LEVELS, Range
from compress.quantization.smooth import STANDS_OUT
from compress.quantization.watch import Floats, Product, Watched, usual


@dataclass(frozen=True)
class Rounding:
    """How a form of int8 rounds: each activation in a range found beforehand, or each run's own where there is none.

    `symmetric` is TensorRT's: ranges around zero, and weights of 8 bits. The others' weights have 7.
    """

    ranges: Mapping[str, Range] | None = None
    symmetric: bool = False

    def states(self, name: str, values: Floats) -> Floats:
        """An activation, rounded; what is outside of its range is cut off."""
        low, high = (float(values.min()), float(values.max())) if self.ranges is None else self.ranges[name]
        low, high = min(low, 0.0), max(high, 0.0)
        steps = 2 * AROUND_ZERO if self.symmetric else LEVELS
        step = np.float32((high - low) / steps or 1)
        zero = np.float32(np.rint(-low / step))
        found: Floats = (np.clip(np.rint(values / step) + zero, 0, steps) - zero) * step
        return found

    def weight(self, values: Floats) -> Floats:
        """A weight `(inputs, outputs)`, rounded with a scale for each output."""
        numbers, scales = rounded(values, 0, LARGEST if self.symmetric else MOST)
        return numbers * scales


@dataclass(frozen=True)
class Sensitivity:
    """What int8 does to one product.

    `error` is the power of the noise over that of the product with its bias, which takes away what a channel that is
    always large adds (the inverse of the signal to quantization noise ratio of Lin et al. 2016, "Fixed point
    quantization of deep convolutional networks"; 0.01 are 20 dB).
    `outlier` is the largest channel of the input over the median one, by their largest magnitudes, and `weight_outlier`
    the same of the weight's rows, one for each input channel: all share a scale with the largest.
    """

    name: str
    shape: tuple[int, int]
    error: float
    outlier: float
    weight_outlier: float

    @property
    def why(self) -> str:
        """The figures in one line."""
        parts = [f"int8 error {self.error:.2%}"]
        if self.outlier > STANDS_OUT or self.outlier >= self.weight_outlier:
            parts.append(f"largest input channel {self.outlier:.3g} times the median")
        if self.weight_outlier > STANDS_OUT:
            parts.append(f"largest weight row {self.weight_outlier:.3g} times the median")
        return ", ".join(parts)


@dataclass(frozen=True)
class Scan:
    """The products of a model in one form of int8, the worst first, on so many texts."""

    method: str
    texts: int
    rows: tuple[Sensitivity, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return asdict(self)


@dataclass
class _Sums:
    """What is added up for one product."""

    exact: Product
    small: Floats
    signal: float = 0.0
    noise: float = 0.0
    peaks: Floats = field(default_factory=lambda: np.zeros(1, np.float32))

    def add(self, values: Floats, coarse: Floats) -> None:
        """Multiply the values `(values, inputs)` of one run, and the same after rounding."""
        wanted = values @ self.exact.weight
        self.noise += float(np.square(coarse @ self.small - wanted).sum(dtype=np.float64))
        self.signal += float(np.square(wanted + self.exact.bias).sum(dtype=np.float64))
        self.peaks = np.maximum(self.peaks, np.abs(values).max(axis=0))

    def found(self) -> Sensitivity:
        """The figures."""
        weight = self.exact.weight
        rows: Floats = np.abs(weight).max(axis=1)
        error = self.noise / self.signal if self.signal else 0.0
        inputs, outputs = weight.shape
        return Sensitivity(self.exact.name, (inputs, outputs), error, _outlier(self.peaks), _outlier(rows))


def _outlier(peaks: Floats) -> float:
    """The largest channel over the median one."""
    return float(peaks.max()) / usual(peaks)


def scan(watched: Watched, rounding: Rounding) -> tuple[Sensitivity, ...]:
    """What a form of int8 does to each product, the worst first."""
    sums = [_Sums(product, rounding.weight(product.weight)) for product in watched.products]
    for found in watched.states():
        coarse = {name: rounding.states(name, values) for name, values in found.items()}
        for each in sums:
            each.add(found[each.exact.states], coarse[each.exact.states])
    return tuple(sorted((each.found() for each in sums), key=lambda row: (-row.error, row.name)))
