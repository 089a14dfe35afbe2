"""The smaller forms that one graph can get, and which of its products may stay float in them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from compress.quantization.ranges import find_ranges
from compress.quantization.sensitivity import Rounding, Scan, scan
from compress.quantization.watch import Watched
from distill.errors import RecipeError
from distill.recipe import QuantizeRecipe

Names = frozenset[str]
"""Products that stay float."""
Maker = Callable[[Names], onnx.ModelProto]
SCANNED = ("dynamic", "static")
"""The methods that a scan knows the rounding of."""
MOST_FLOAT = 0.25
"""The share of products that may stay float by themselves: with more, int8 is not worth its name."""


@dataclass(frozen=True)
class Forms:
    """How to make each form, by method, and the float graph that shows what they do to its products."""

    makers: Mapping[str, Maker]
    watched: Callable[[], Watched]


def scan_form(watched: Watched, method: str, settings: QuantizeRecipe) -> Scan:
    """What a method does to each product, the worst first.

    Raises:
        RecipeError: its rounding is not known here.
    """
    if method not in SCANNED:
        raise RecipeError(f"a scan knows how {' and '.join(SCANNED)} round, not {method}; name one of these")
    ranges = find_ranges(watched, settings) if method == "static" else None
    return Scan(method, len(watched.batches), scan(watched, Rounding(ranges, settings.device == "tensorrt")))


def counts(products: int) -> tuple[int, ...]:
    """How many products are left float, try by try: 1, 2, 4, … and at last as many as may be."""
    most = int(products * MOST_FLOAT)
    doubled = [2**power for power in range(products.bit_length()) if 2**power < most]
    return (*doubled, most) if most else ()


def check_names(given: Collection[str], known: Sequence[str]) -> None:
    """Refuse names that no product has.

    Raises:
        RecipeError: with each of them and the nearest that there are.
    """
    problems = [_nearest(name, known) for name in given if name not in known]
    if problems:
        raise RecipeError(
            "quantize.exclude: expected names of this model's products (`compress scan` lists them)", problems
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    """One problem."""
    close = difflib.get_close_matches(name, known)
    return f"{name}: there is no such product; did you mean {' or '.join(close) if close else ', '.join(known[:8])}?"
