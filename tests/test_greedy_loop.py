"""The loop inside of translation graphs writes what the search outside of them does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from translation_models import MODELS, VOCABULARY, lively, opened, source_batch, tiny_translator

from compress.quantization.translation_int8 import quantize_translation
from distill.errors import BundleError
from export.decode import greedy
from export.decoding import Decoding
from export.looped import fits_loop
from export.seq2seq.build import build
from export.seq2seq.weights import read_model

RULES = Decoding(start=2, end=10, pad=1, max_length=12)
TABLE: dict[str, Decoding] = {
    "plain": RULES,
    "an end that nobody writes": replace(RULES, end=VOCABULARY - 1, suppressed=(VOCABULARY - 1,)),
    "a language": replace(RULES, forced_start=9),
    "a forced end": replace(RULES, forced_end=10),
    "all of it": replace(RULES, forced_start=9, forced_end=10, suppressed=(3, 11, 30, 41)),
    "hardly any room": replace(RULES, max_length=3, forced_start=9, forced_end=10),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return lively(request.param)


@pytest.mark.parametrize("rules", TABLE.values(), ids=TABLE)
def test_a_batch_is_written_as_by_steps(model: Any, rules: Decoding) -> None:
    engine = opened(build(*read_model(model, 40), 20))
    ids, mask = source_batch(model)
    assert engine.write(ids, mask, rules) == [[each] for each in greedy(engine.start(ids, mask), len(ids), rules)]


def test_int8_writes_a_sentence_as_by_steps(model: Any) -> None:
    engine = opened(quantize_translation(build(*read_model(model, 40), 20)))
    for ids, mask in zip(*source_batch(model), strict=True):
        row = (ids[None, : mask.sum()], mask[None, : mask.sum()])
        assert engine.write(*row, RULES) == [greedy(engine.start(*row), 1, RULES)]


def test_the_table_is_not_all_alike() -> None:
    model = lively("bart")
    engine, source = opened(build(*read_model(model, 40), 20)), source_batch(model)
    found = {name: engine.write(*source, rules) for name, rules in TABLE.items()}
    assert len({tuple(tuple(each.tokens) for (each,) in answers) for answers in found.values()}) == len(TABLE)
    assert {len(each.tokens) for (each,) in found["plain"]} == {1, 9, 12}, "rows end one after the other"
    assert [each.stopped for (each,) in found["an end that nobody writes"]] == [True] * 3


FITTING: list[tuple[dict[str, Any], int, bool, bool]] = [
    ({}, 1, False, True),
    ({}, 4, False, True),
    ({}, 5, False, False),
    ({}, 1, True, False),
    ({"beams": 2}, 1, False, True),
    ({"beams": 2}, 1, True, True),
    ({"beams": 2}, 2, False, False),
    ({"no_repeat_ngram_size": 3}, 1, False, False),
    ({"max_length": 2, "forced_start": 3, "forced_end": 4}, 1, False, False),
    ({"max_length": 3, "forced_start": 3, "forced_end": 4}, 1, False, True),
]


@pytest.mark.parametrize(("changes", "rows", "scored", "expected"), FITTING)
def test_what_the_loop_is_for(changes: dict[str, Any], rows: int, scored: bool, expected: bool) -> None:
    assert fits_loop(replace(RULES, **changes), rows, scored) is expected


def test_logits_that_are_no_numbers_are_refused() -> None:
    plan, weights = read_model(tiny_translator("marian"), 40)
    damaged = {**weights, "output.bias": np.full_like(weights["output.bias"], np.nan)}
    with pytest.raises(BundleError, match="NaN or infinite"):
        opened(build(plan, damaged, 20)).write(np.array([[5, 2]]), np.ones((1, 2), np.int64), RULES)
