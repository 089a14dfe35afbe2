"""Ranges of static int8: from the smallest to the largest value seen, or narrower ones that cut off what is rare.

Only what products read is looked at, so that the lowest float of attention's mask never counts; rows are read one by
one, so that padding does not.

Nothing is cut off by default: of a trained encoder percentiles were no better at 99.999 and worse below. At 99.99,
without smoothing, the noise in the second products of feed-forwards had half of their power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.quantization.watch import Floats, Watched
from distill.recipe import QuantizeRecipe

BINS = 2048
LEVELS, AROUND_ZERO = 255, 127
"""Steps of an 8-bit range, and those on each side of one around zero."""

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many values `(bins,)` lie between `edges` `(bins + 1,)`; of magnitudes, the first edge is 0."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]


def find_ranges(watched: Watched, settings: QuantizeRecipe) -> dict[str, Range]:
    """The range of each activation that a product reads, as `quantize.ranges` says; each holds 0.

    For TensorRT they lie around zero.
    """
    symmetric = settings.device == "tensorrt"
    extremes: dict[str, Range] = {}
    for found in watched.states():
        for name, values in found.items():
            low, high = extremes.get(name, (0.0, 0.0))
            extremes[name] = _wider(min(low, float(values.min())), max(high, float(values.max())), symmetric)
    if settings.ranges == "minmax":
        return extremes
    seen = _histograms(watched, extremes, symmetric)
    clipped = {
        name: percentile(each, settings.percentile, symmetric)
        if settings.ranges == "percentile"
        else least_error(each, symmetric)
        for name, each in seen.items()
    }
    return {name: (-high if symmetric else low, high) for name, (low, high) in clipped.items()}


def _wider(low: float, high: float, symmetric: bool) -> Range:
    """The range, or one around zero that holds it."""
    peak = max(-low, high)
    return (-peak, peak) if symmetric else (low, high)


def _histograms(watched: Watched, extremes: Mapping[str, Range], symmetric: bool) -> dict[str, Histogram]:
    """How the values of each activation are spread between its extremes, or their magnitudes."""
    spans = {name: (0.0 if symmetric else low, high if high > low else 1.0) for name, (low, high) in extremes.items()}
    counts = {name: np.zeros(BINS, np.int64) for name in spans}
    for found in watched.states():
        for name, values in found.items():
            seen: Floats = np.abs(values) if symmetric else values
            counts[name] += np.histogram(seen, BINS, spans[name])[0]
    return {name: Histogram(counts[name], np.linspace(*span, BINS + 1)) for name, span in spans.items()}


def percentile(seen: Histogram, share: float, symmetric: bool = False) -> Range:
    """The range that holds `share` per cent of the values: what is cut off is half of it at each end.

    Of magnitudes all is cut off at the upper end.
    """
    below = np.cumsum(seen.counts)
    cut = (100 - share) / 100 * below[-1] / (1 if symmetric else 2)
    low = 0 if symmetric else int(np.searchsorted(below, cut, "right"))
    high = int(np.searchsorted(below, below[-1] - cut)) + 1
    return min(float(seen.edges[low]), 0.0), max(float(seen.edges[min(high, len(below))]), 0.0)


def least_error(seen: Histogram, symmetric: bool = False) -> Range:
    """The range, of all from one edge to another that hold 0, with the least mean squared error.

    A value inside is off by step^2 / 12 in the mean (Bennett 1948), one outside by its distance to the range, squared
    (after Banner et al. 2019, "Post training 4-bit quantization", who do so for known distributions).
    """
    edges, centres = seen.edges, (seen.edges[1:] + seen.edges[:-1]) / 2
    number, first, second = (np.concatenate([[0.0], np.cumsum(seen.counts * centres**power)]) for power in range(3))
    below = second - 2 * edges * first + edges**2 * number
    above = (second[-1] - second) - 2 * edges * (first[-1] - first) + edges**2 * (number[-1] - number)
    lows = np.array([0]) if symmetric else np.flatnonzero(edges <= 0)
    highs = np.flatnonzero(edges >= 0)
    step = (edges[highs] - edges[lows][:, None]) / (AROUND_ZERO if symmetric else LEVELS)
    inside = (number[highs] - number[lows][:, None]) * step**2 / 12
    low, high = np.unravel_index(np.argmin(below[lows][:, None] + above[highs] + inside), inside.shape)
    return float(edges[lows[low]]), float(edges[highs[high]])
