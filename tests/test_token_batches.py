"""Batches of pairs by tokens: every row once, never too many tokens, an order that can be entered again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from translation_models import toy_translation_tokenizer

from distill.task import Task
from distill.token_batches import ByTokens, collate_pairs, encode_pairs, lengths

pairs_of_lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=80)


@given(pairs_of_lengths, st.integers(20, 400), st.integers(0, 5))
def test_every_row_once_within_the_budget_and_as_many_batches_each_epoch(
    found: list[tuple[int, int]], budget: int, seed: int
) -> None:
    sizes = np.asarray(found, dtype=np.int64).reshape(-1, 2)
    order = ByTokens(sizes, budget, seed)
    shapes = []
    for epoch in (0, 1):
        order.epoch = epoch
        batches = list(order)
        assert len(batches) == len(order)
        assert sorted(row for batch in batches for row in batch) == list(range(len(sizes)))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * sizes[batch].max(axis=0).sum() <= budget
        shapes.append(sorted(len(batch) for batch in batches))
    assert shapes[0] == shapes[1]


def test_the_order_follows_from_seed_and_epoch() -> None:
    sizes = np.random.default_rng(0).integers(3, 12, (300, 2))
    order = ByTokens(sizes, 200, 3)
    first = list(order)
    np.random.default_rng().random(5)
    assert list(order) == first == list(ByTokens(sizes, 200, 3))
    order.epoch = 1
    second = list(order)
    assert second != first
    assert {frozenset(batch) for batch in second} != {frozenset(batch) for batch in first}, "other rows meet"
    assert list(ByTokens(sizes, 200, 4)) != first


def test_little_is_padding() -> None:
    sizes = np.random.default_rng(1).integers(3, 40, (5000, 2))
    batches = list(ByTokens(sizes, 3000, 0))
    padded = sum(len(batch) * sizes[batch].max(axis=0).sum() for batch in batches)
    assert sizes.sum() / padded > 0.88
    assert padded / len(batches) > 0.8 * 3000


def test_a_batch_by_hand() -> None:
    class Model(nn.Module):
        def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
            start = torch.full((len(labels), 1), 7)
            return torch.cat([start, labels[:, :-1]], dim=1).masked_fill_(labels == -100, 9)

    rows: list[dict[str, Any]] = [
        {"input_ids": [5, 6, 1], "labels": [4, 1], "row": 3},
        {"input_ids": [8, 1], "labels": [2, 3, 1], "row": 0},
    ]
    batch = collate_pairs(9, Model(), rows)
    assert batch["input_ids"].tolist() == [[5, 6, 1], [8, 1, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[4, 1, -100], [2, 3, 1]]
    assert batch["decoder_input_ids"].tolist() == [[7, 4, 9], [7, 2, 3]]
    assert batch["row"].tolist() == [3, 0]
    assert lengths(rows).tolist() == [[3, 2], [2, 3]]
    assert lengths([]).shape == (0, 2)


def test_no_pairs() -> None:
    assert encode_pairs(toy_translation_tokenizer(), [], [], Task("translation", ())) == []
