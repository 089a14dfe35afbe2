"""The teacher's answers: in the order of the rows, whatever the batches, and by the names of its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import toy_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.checkpoint import load_model, load_tokenizer
from distill.data import Dataset, Split
from distill.label import label, logits
from distill.task import Task

TASK = Task("classification", ("negative", "positive"), max_length=32)
TEXTS = tuple(text for text, _ in toy_rows(23, seed=1))


def split_of(texts: tuple[str, ...], pairs: tuple[str, ...] | None = None) -> Split:
    return Split(texts, pairs, tuple(i % 2 for i in range(len(texts))))


@pytest.fixture(scope="module")
def ready(tiny_checkpoint: Path) -> tuple[object, object]:
    return load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)


@pytest.mark.parametrize("size", [1, 2, 7, 22, 64])
def test_answers_do_not_depend_on_the_batch(ready: tuple, size: int) -> None:
    alone = np.concatenate([logits(*ready, split_of((text,)), TASK) for text in TEXTS])
    found = logits(*ready, split_of(TEXTS), TASK, batch_size=size)
    assert found.shape == (23, 2) and found.dtype == np.float32
    assert np.abs(found - alone).max() < 1e-5


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(23)))
def test_answers_come_in_the_order_of_the_rows(ready: tuple, order: list[int]) -> None:
    straight = logits(*ready, split_of(TEXTS), TASK, batch_size=5)
    mixed = logits(*ready, split_of(tuple(TEXTS[i] for i in order)), TASK, batch_size=5)
    assert np.abs(mixed - straight[list(order)]).max() < 1e-5


def test_pairs_are_not_single_texts(ready: tuple) -> None:
    pairs = tuple(reversed(TEXTS))
    one, two = logits(*ready, split_of(TEXTS), TASK), logits(*ready, split_of(TEXTS, pairs), TASK, batch_size=4)
    turned = logits(*ready, split_of(pairs, TEXTS), TASK, batch_size=4)
    assert np.abs(one - two).max() > 1e-4
    assert np.abs(turned - two).max() > 1e-5


def test_long_texts_are_cut(ready: tuple) -> None:
    found = logits(*ready, split_of(("good " * 500, "good " * 40)), TASK)
    assert np.abs(found[0] - found[1]).max() < 1e-5


def test_odd_texts_get_finite_answers(ready: tuple) -> None:
    found = logits(*ready, split_of(("", "  ", "\x00\x01", "ünïcödé 模型 🎬")), TASK)
    assert np.isfinite(found).all()


def test_progress_ends_with_all_rows(ready: tuple) -> None:
    told: list[tuple[str, int, int]] = []
    logits(*ready, split_of(TEXTS), TASK, 10, lambda *args: told.append(args))
    assert told == [("label", 10, 23), ("label", 20, 23), ("label", 23, 23)]


def test_training_and_unlabelled_rows_are_asked_by_id_and_name(ready: tuple) -> None:
    splits = {
        "train": split_of(TEXTS[:8]),
        "validation": split_of(TEXTS[8:12]),
        "test": split_of(TEXTS[12:16]),
        "unlabelled": Split(TEXTS[16:], None, ()),
    }
    dataset = Dataset(TASK, splits, "0" * 64, {}, ())
    found = label(*ready, dataset, "feed", batch_size=4)
    assert found.ids == splits["train"].ids + splits["unlabelled"].ids
    assert (found.labels, found.teacher) == (TASK.labels, "feed")
    turned = found.of(splits["unlabelled"].ids, ("positive", "negative"))
    assert np.abs(turned[:, ::-1] - logits(*ready, splits["unlabelled"], TASK)).max() < 1e-5
