"""Which units stay: by share, and within a budget, against counting by hand and against trying everything."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.pruning.choose import Block, choose, choose_within

T = torch.tensor


@pytest.mark.parametrize(
    ("values", "removed", "multiple", "expected"),
    [
        ([[1, 2, 3, 4]], 0.5, 1, [[2, 3]]),
        ([[4, 1, 3, 2]], 0.5, 1, [[0, 2]]),
        ([[4, 1, 3, 2]], 0.0, 1, [[0, 1, 2, 3]]),
        ([[4, 1, 3, 2]], 0.99, 1, [[0]]),
        # a layer's scores are divided by their norm: the quiet layer is not emptied
        ([[3.0, 4.0], [0.03, 0.04]], 0.5, 1, [[1], [1]]),
        # one layer has a single strong unit, the other four even ones (norm 1 each: 1, 0, 0, 0 and four halves)
        ([[5.0, 0, 0, 0], [1.0, 1.0, 1.0, 1.0]], 0.375, 1, [[0], [0, 1, 2, 3]]),
        # every layer keeps one unit at least
        ([[1.0, 0.9], [0.5, 0.0], [0.2, 0.0]], 0.9, 1, [[0], [0], [0]]),
        # rounded to multiples, at least one of them
        ([list(range(8))], 0.5, 4, [[4, 5, 6, 7]]),
        ([list(range(8))], 0.4, 4, [[4, 5, 6, 7]]),
        ([list(range(8))], 0.2, 4, [list(range(8))]),
        ([list(range(8))], 0.9, 4, [[4, 5, 6, 7]]),
        # a layer smaller than a multiple is not rounded
        ([[3.0, 1.0, 2.0]], 0.34, 4, [[0, 2]]),
        # equal scores: the first ones stay, and no more than asked for
        ([[1.0, 1.0, 1.0, 1.0]], 0.5, 1, [[0, 1]]),
        ([[1.0, 1.0], [1.0, 1.0]], 0.5, 1, [[0], [0]]),
        ([[0.0, 0.0, 0.0, 0.0]], 0.5, 1, [[0, 1]]),
    ],
)
def test_choose(values: list[list[float]], removed: float, multiple: int, expected: list[list[int]]) -> None:
    assert choose([T(value, dtype=torch.float32) for value in values], removed, multiple) == expected


tables = st.integers(1, 12).flatmap(
    lambda units: st.lists(st.lists(st.floats(0, 10, width=32), min_size=units, max_size=units), min_size=1, max_size=5)
)


@given(values=tables, removed=st.floats(0, 0.99), multiple=st.sampled_from([1, 2, 4]))
def test_what_is_chosen_is_there_once_in_order_and_never_nothing(
    values: list[list[float]], removed: float, multiple: int
) -> None:
    chosen = choose([T(value) for value in values], removed, multiple)
    for value, kept in zip(values, chosen, strict=True):
        assert kept == sorted(set(kept)) and 1 <= len(kept) <= len(value)
        assert set(kept) <= set(range(len(value)))
        assert len(kept) % multiple == 0 or len(kept) < multiple or len(kept) == len(value)


@given(values=tables, removed=st.floats(0, 0.99))
def test_the_share_that_is_removed(values: list[list[float]], removed: float) -> None:
    total = sum(map(len, values))
    kept = sum(map(len, choose([T(value) for value in values], removed)))
    assert kept == max(len(values), round(total * (1 - removed)))


def block(worth: list[float], cost: float, multiple: int = 1) -> Block:
    return Block(T(worth), cost, multiple)


@pytest.mark.parametrize(
    ("blocks", "budget", "expected"),
    [
        # all costs are alike: the least worth goes first
        ({"a": block([1, 5, 3], 1), "b": block([4, 2], 1)}, 3, {"a": [1, 2], "b": [0]}),
        # b's units cost ten times as much: they go first, though worth more
        ({"a": block([1, 5, 3], 1), "b": block([4, 6], 10)}, 14, {"a": [0, 1, 2], "b": [1]}),
        # nothing has to go
        ({"a": block([1, 2], 1)}, 2, {"a": [0, 1]}),
        # one unit stays, whatever the budget
        ({"a": block([1, 2], 1), "b": block([0, 0, 9], 1)}, 0, {"a": [1], "b": [2]}),
        # what costs nothing stays
        ({"a": block([1, 2], 1), "b": block([0.0, 0.0], 0)}, 0, {"a": [1], "b": [0, 1]}),
        # in steps of two: the worst pair goes together
        ({"a": block([9, 1, 8, 2, 7, 7], 1, 2)}, 4, {"a": [0, 2, 4, 5]}),
        # five in steps of two: first the one that is left over
        ({"a": block([5, 4, 3, 2, 1], 1, 2)}, 4, {"a": [0, 1, 2, 3]}),
    ],
)
def test_within_a_budget(blocks: dict[str, Block], budget: float, expected: dict[str, list[int]]) -> None:
    assert choose_within(blocks, budget) == expected


worths = st.lists(st.floats(0, 10, width=32), min_size=1, max_size=4)


@given(st.lists(st.tuples(worths, st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=3), st.floats(0, 1))
def test_the_budget_holds_and_the_better_units_of_a_block_stay(
    given_blocks: list[tuple[list[float], float]], share: float
) -> None:
    blocks = {number: block(worth, cost) for number, (worth, cost) in enumerate(given_blocks)}
    whole = sum(cost * len(worth) for worth, cost in given_blocks)
    kept = choose_within(blocks, share * whole)
    least = sum(cost for _, cost in given_blocks)
    assert sum(blocks[name].cost * len(units) for name, units in kept.items()) <= max(share * whole, least) + 1e-6
    for name, units in kept.items():
        gone = set(range(len(blocks[name].worth))) - set(units)
        assert units == sorted(set(units)) and units
        assert all(blocks[name].worth[a] <= blocks[name].worth[b] for a, b in product(gone, units))
