from __future__ import annotations

import numpy as np
import pytest

from distill.errors import RunError
from export.parity import Batch, awkward_batches, compare, real_batches, require


def batch(rows: int, length: int = 4) -> Batch:
    return {"input_ids": np.zeros((rows, length), np.int64)}


def answers(*logits: list[list[float]]):
    waiting = iter(logits)
    return lambda _: np.asarray(next(waiting), np.float32)


def test_the_largest_difference_is_found_and_placed() -> None:
    expected = answers([[0.0, 1.0], [2.0, 0.0]], [[1.0, 0.0]])
    found = answers([[0.0, 1.0], [2.0, 0.25]], [[0.5, 0.625]])
    result = compare(expected, found, [batch(2), batch(1, 9)])
    assert result.max_abs == 0.625
    assert result.agreement == pytest.approx(2 / 3)
    assert result.n == 3
    assert str(result.worst) == "row 0 of batch 1 (1, 9), label 1: expected 0, found 0.625"
    assert result.to_json() == {"max_abs": 0.625, "agreement": pytest.approx(2 / 3), "n": 3}


def test_a_nan_is_the_worst_difference() -> None:
    result = compare(answers([[0.0, 1.0]]), answers([[5.0, float("nan")]]), [batch(1)])
    assert result.max_abs == float("inf")
    with pytest.raises(RunError, match="'logits' differs by inf"):
        require(result, 1e9, "logits")


@pytest.mark.parametrize(("atol", "fails"), [(0.49, True), (0.5, False), (0.51, False)])
def test_the_limit_belongs_to_what_is_allowed(atol: float, fails: bool) -> None:
    result = compare(answers([[0.0, 1.0]]), answers([[0.5, 1.0]]), [batch(1)])
    if not fails:
        require(result, atol, "logits")
        return
    with pytest.raises(RunError) as caught:
        require(result, atol, "logits")
    assert "'logits' differs by 0.5, allowed is 0.49" in str(caught.value)
    assert "row 0 of batch 0 (1, 4), label 0: expected 0, found 0.5" in str(caught.value)


def test_no_batches_prove_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        compare(answers(), answers(), [])


def test_real_texts_all_come_in_order() -> None:
    seen: list[int] = []

    def encode(texts) -> Batch:
        seen.extend(texts)
        return batch(len(texts))

    sizes = [len(each["input_ids"]) for each in real_batches(encode, list(range(31)))]
    assert seen == list(range(31))
    assert sizes == [15, 15, 1]


@pytest.mark.parametrize(("rows", "types", "longest"), [(30, 2, 16), (5, 1, 3), (100, 2, 128)])
def test_awkward_batches_fit_the_model(rows: int, types: int, longest: int) -> None:
    batches = list(awkward_batches(rows, types, longest))
    shapes = [each["input_ids"].shape for each in batches]
    assert (1, 1) in shapes
    assert any(length == longest and count % 2 for count, length in shapes)
    for each in batches:
        assert {array.shape for array in each.values()} == {each["input_ids"].shape}
        assert 0 <= each["input_ids"].min() <= each["input_ids"].max() < rows
        assert each["token_type_ids"].max() < types
        assert each["attention_mask"][:, 0].all()  # no row is all padding
        assert each["attention_mask"][0].all()  # and one has none
