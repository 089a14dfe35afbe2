"""Ranks counted by hand, and what holds for any energies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.low_rank.ranks import Shape, by_energy, by_parameters, rank_for
from distill.errors import RecipeError

T = torch.tensor


@pytest.mark.parametrize(
    ("energies", "share", "multiple", "expected"),
    [
        ([4.0, 3.0, 2.0, 1.0], 0.4, 1, 1),  # 4 of 10
        ([4.0, 3.0, 2.0, 1.0], 0.41, 1, 2),
        ([4.0, 3.0, 2.0, 1.0], 0.7, 1, 2),  # 7 of 10
        ([4.0, 3.0, 2.0, 1.0], 0.95, 1, 4),
        ([4.0, 3.0, 2.0, 1.0], 0.5, 3, 3),
        ([1.0] * 10, 0.5, 4, 8),  # 5, rounded up
        ([1.0, 0.0, 0.0], 0.999, 1, 1),
        ([0.0, 0.0], 0.5, 1, 3),  # a map that never had an input: more than there is, so it stays whole
    ],
)
def test_the_rank_of_an_energy(energies: list[float], share: float, multiple: int, expected: int) -> None:
    assert rank_for(T(energies, dtype=torch.float64), share, multiple) == expected


def test_a_rank_that_saves_nothing_is_none() -> None:
    flat = T([1.0] * 8)
    # 8 x 8: rank 3 costs 48 of 64, rank 4 costs 64
    assert by_energy([flat, flat], [Shape(8, 8)] * 2, 0.375, 1) == [3, 3]
    assert by_energy([flat, flat], [Shape(8, 8), Shape(8, 32)], 0.5, 1) == [None, 4]  # 160 of 256
    assert by_energy([flat], [Shape(8, 8)], 0.01, 8) == [None]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        # shapes 4 x 4: a rank costs 8 of 16, rank 1 is the only one that saves, then 8 more make it whole
        # steps of a: 9, then 1 for the rest; of b: 4, then 6
        (0.5, [1, 1]),
        (0.74, [1, 1]),  # 32 parameters, room for 23: no second step fits
        (0.75, [1, None]),  # 24: b gains 6 for 8
        (1.0, [None, None]),
    ],
)
def test_parameters_go_where_they_are_worth_most(share: float, expected: list[int | None]) -> None:
    worths = [T([9.0, 1.0, 0.0, 0.0]), T([4.0, 2.0, 2.0, 2.0])]
    assert by_parameters(worths, [Shape(4, 4)] * 2, share, 1) == expected


def test_worth_is_counted_for_each_parameter() -> None:
    # a rank of the first costs 16, of the second 24; 64 + 128 = 192 parameters
    energies = [T([5.0, 2.0, 2.0, 1.0, 0, 0, 0, 0]), T([5.0, 2.5, 2.5, 0, 0, 0, 0, 0])]
    shapes = [Shape(8, 8), Shape(8, 16)]
    # 40 for one of each; then 2 / 16 = 0.125 before 2.5 / 24 = 0.104
    assert by_parameters(energies, shapes, 56 / 192, 1) == [2, 1]
    assert by_parameters(energies, shapes, 64 / 192, 1) == [2, 1]  # 8 are left: no step fits
    assert by_parameters(energies, shapes, 72 / 192, 1) == [3, 1]
    assert by_parameters(energies, shapes, 120 / 192, 1) == [3, 3]


def test_fewer_parameters_than_one_step_of_each() -> None:
    with pytest.raises(RecipeError, match=r"factorise.parameters: ranks of 8 leave 0\.375 of the weights") as caught:
        by_parameters([torch.ones(32)], [Shape(32, 64)], 0.25)
    assert "found 0.25" in str(caught.value)


maps = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.lists(st.floats(0, 10, width=32), min_size=20, max_size=20)),
    min_size=1,
    max_size=5,
)


def decode(found: Sequence[tuple[int, int, list[float]]]) -> tuple[list[torch.Tensor], list[Shape]]:
    energies = [T(sorted(values, reverse=True)[: min(a, b)], dtype=torch.float64) for a, b, values in found]
    return energies, [Shape(a, b) for a, b, _ in found]


@given(found=maps, share=st.floats(0.01, 0.999), multiple=st.sampled_from([1, 2, 4]))
def test_a_rank_keeps_the_energy_and_saves_parameters(
    found: list[tuple[int, int, list[float]]], share: float, multiple: int
) -> None:
    energies, shapes = decode(found)
    for rank, energy, shape in zip(by_energy(energies, shapes, share, multiple), energies, shapes, strict=True):
        if rank is not None:
            assert rank % multiple == 0 and rank * (shape.inputs + shape.outputs) < shape.inputs * shape.outputs
            assert energy[:rank].sum() >= share * energy.sum() * (1 - 1e-9)


@given(found=maps, share=st.floats(0.05, 1.0), multiple=st.sampled_from([1, 2, 4]))
def test_all_together_stay_within_the_share(
    found: list[tuple[int, int, list[float]]], share: float, multiple: int
) -> None:
    energies, shapes = decode(found)
    try:
        ranks = by_parameters(energies, shapes, share, multiple)
    except RecipeError:
        return
    left = [
        s.inputs * s.outputs if r is None else r * (s.inputs + s.outputs) for r, s in zip(ranks, shapes, strict=True)
    ]
    assert sum(left) <= share * sum(s.inputs * s.outputs for s in shapes) + 1e-9
    assert all(own <= s.inputs * s.outputs for own, s in zip(left, shapes, strict=True))
