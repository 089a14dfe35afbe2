"""Layers side by side, as people read them: before and after, the difference, and what was removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.layer_names import MEMORY, REST, STACKS, order
from bench.words import ms
from distill.rows import LayerCost

Rows = Sequence[LayerCost]
Value = Callable[[LayerCost], float]
Cells = Sequence[str]
ALL, ARROW = "all", " → "
MANY_ZEROS = 0.2
"""More than rounding makes: int8 weights have a few per cent of zeros, 4-bit ones up to a fifth."""
HEAD = ("layer", "heads", "neurons", "MB", "parameters", "int8 products", "zeros", "ms", "of the time")


def side_by_side(bundles: Sequence[Rows]) -> tuple[Cells, list[Cells]]:
    """Head and rows of one table: layers down, and in each cell what the bundles have, the first one first.

    Differences are the last bundle's to the first. Columns that no bundle can fill are left out.
    """
    layers = sorted({row.layer for rows in bundles for row in rows}, key=order)
    body = [_cells(layer, [_find(rows, layer) for rows in bundles]) for layer in layers]
    body.append(_cells(ALL, [_sum(rows) for rows in bundles]))
    kept = [place for place in range(len(HEAD)) if any(row[place].strip("- →") for row in body)]
    return [HEAD[place] for place in kept], [[row[place] for place in kept] for row in body]


def _find(rows: Rows, layer: str) -> LayerCost | None:
    """A bundle's row for a layer, if it has that layer."""
    return next((row for row in rows if row.layer == layer), None)


def _sum(rows: Rows) -> LayerCost:
    """All rows of a bundle as one; heads, neurons and zeros are not added up."""
    numbers = {
        name: sum(getattr(row, name) for row in rows)
        for name in ("bytes", "parameters", "products", "int8_products", "ms", "share")
    }
    return LayerCost(model="", precision="", layer=ALL, **numbers)


def _cells(layer: str, rows: Sequence[LayerCost | None]) -> list[str]:
    """One row of the table."""
    return [
        layer,
        _join([_heads(row) for row in rows]),
        _join(["-" if row is None or row.neurons is None else str(row.neurons) for row in rows]),
        _compared(rows, lambda row: f"{row.bytes / 1e6:.2f}", lambda row: row.bytes),
        _compared(rows, lambda row: f"{row.parameters:,}", lambda row: row.parameters),
        _join([_of(row, lambda row: f"{row.int8_products} of {row.products}") for row in rows]),
        _join(["-" if row is None or row.zeros is None else f"{row.zeros:.1%}" for row in rows]),
        _compared(rows, lambda row: ms(row.ms), lambda row: row.ms),
        _join([_of(row, lambda row: f"{row.share:.1%}") for row in rows]),
    ]


def _of(row: LayerCost | None, text: Callable[[LayerCost], str]) -> str:
    """A number of a layer, where there is that layer."""
    return "-" if row is None else text(row)


def _heads(row: LayerCost | None) -> str:
    """Heads of a layer's own attention, and behind a plus those that look at the source."""
    if row is None or row.heads is None:
        return "-"
    return str(row.heads) if row.cross_heads is None else f"{row.heads} + {row.cross_heads}"


def _join(values: Cells) -> str:
    """What the bundles have, once where it is the same."""
    return values[0] if len(set(values)) == 1 else ARROW.join(values)


def _compared(rows: Sequence[LayerCost | None], text: Callable[[LayerCost], str], value: Value) -> str:
    """A number of all bundles, and how much more or less the last one has than the first, in per cent."""
    joined = _join([_of(row, text) for row in rows])
    first, last = (0 if row is None else value(row) for row in (rows[0], rows[-1]))
    return f"{joined} ({last / first - 1:+.0%})" if first and ARROW in joined else joined


def removed(before: Rows, after: Rows) -> list[str]:
    """What one bundle has less of than another, a sentence a stack; a graph that does not tell is passed over."""
    found = []
    for stack in STACKS:
        counts = [(_layers(rows, stack), _total(rows, stack, "heads"), _total(rows, stack, "cross_heads"),
                   _total(rows, stack, "neurons")) for rows in (before, after)]  # fmt: skip
        changed = [
            f"{a:,}{ARROW}{b:,} {what}"
            for what, a, b in zip(("layers", "heads", "heads on the source", "neurons"), *counts, strict=True)
            if a and b is not None and a != b
        ]
        found += [f"{stack}: {', '.join(changed)}"] if changed else []
    return found


def _layers(rows: Rows, stack: str) -> int:
    """How many layers a stack has."""
    return sum(row.layer.startswith(f"{stack}.") and row.layer != MEMORY for row in rows)


def _total(rows: Rows, stack: str, name: str) -> int | None:
    """Heads or neurons of all layers of a stack; None where one of them does not tell."""
    numbers = [getattr(row, name) for row in rows if row.layer.startswith(f"{stack}.") and row.layer != MEMORY]
    return None if not numbers or None in numbers else sum(numbers)


def explained(bundles: Sequence[Rows], plain_ms: Mapping[str, float]) -> list[str]:
    """What has to be said with the table; `plain_ms` names runs without the profiler."""
    first = bundles[0][0]
    asked = (
        f"a sentence of about {first.length} tokens, greedily"
        if first.work == "text"
        else f"{first.batch} x {first.length} tokens"
    )
    found = [
        f"ms: {asked}, one thread; medians of each layer's nodes over {first.runs} rounds of onnxruntime's profile",
        *(f"{name}: {ms(time)} ms the fastest run without the profiler" for name, time in plain_ms.items()),
        f"{REST}: what belongs to no layer: constants and nodes in the file; in the time what the fastest run "
        "without the profiler takes beyond the layers' nodes, onnxruntime's work between them and ours around them",
    ]
    if any((row.zeros or 0) > MANY_ZEROS for rows in bundles for row in rows):
        found.append("zeros: onnxruntime's products on a processor take as long with them as without")
    if len({tuple(_layers(rows, stack) for stack in STACKS) for rows in bundles}) > 1:
        found.append("layers are counted in each bundle by itself: files do not say which became which")
    if any(row.layer == MEMORY for rows in bundles for row in rows):
        found.append(f"{MEMORY}: keys and values of the source for all of the decoder's layers, in one product")
    if any(row.layer == "output" and row.products for rows in bundles for row in rows):
        found.append("output: its matrix is counted with the embedding where they are one and the same")
    busy = next((row.reason for rows in bundles for row in rows if row.reason), None)
    return [*found, *([f"WARNING: measure again on a quiet machine: {busy}"] if busy else [])]
