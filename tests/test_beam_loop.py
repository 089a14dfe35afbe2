"""The beam search inside of translation graphs finds what the one outside of them does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from translation_models import MODELS, VOCABULARY, lively, opened, source_batch, tiny_translator

from compress.quantization.translation_int8 import quantize_translation
from distill.errors import BundleError
from export.beams import beam_search
from export.decoding import Decoding
from export.hypotheses import Hypothesis
from export.looped import _norms, _Paths
from export.seq2seq.build import build
from export.seq2seq.weights import read_model
from export.steps import Engine

RULES = Decoding(start=2, end=10, pad=1, max_length=12, beams=4)
TABLE: dict[str, Decoding] = {
    "plain": RULES,
    "two": replace(RULES, beams=2),
    "more than continuations": replace(RULES, beams=VOCABULARY // 2 + 1),
    "long ones": replace(RULES, length_penalty=2.5),
    "short ones": replace(RULES, length_penalty=-1.0),
    "an end that nobody writes": replace(RULES, end=VOCABULARY - 1, suppressed=(VOCABULARY - 1,)),
    "a language": replace(RULES, forced_start=9),
    "a forced end": replace(RULES, forced_end=10),
    "all of it": replace(RULES, forced_start=9, forced_end=10, suppressed=(3, 11, 30, 41), beams=3),
    "hardly any room": replace(RULES, max_length=3, forced_start=9, forced_end=10),
    "one token": replace(RULES, max_length=1),
}


@pytest.fixture(scope="module", params=MODELS)
def engine(request: pytest.FixtureRequest) -> tuple[Engine, Any]:
    model = lively(request.param)
    return opened(build(*read_model(model, 40), 20)), source_batch(model)


def same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert [each.stopped for each in found] == [each.stopped for each in expected]
    np.testing.assert_allclose([each.score for each in found], [each.score for each in expected], rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("rules", TABLE.values(), ids=TABLE)
def test_a_sentence_is_searched_as_by_steps(engine: tuple[Engine, Any], rules: Decoding) -> None:
    opened_engine, source = engine
    for ids, mask in zip(*source, strict=True):
        row = (ids[None, : mask.sum()], mask[None, : mask.sum()])
        for n_best in {1, rules.beams}:
            found = opened_engine.write(*row, rules, n_best)[0]
            same(found, beam_search(opened_engine.start(*row), 1, rules, n_best)[0])


def test_int8_is_searched_as_by_steps() -> None:
    model = lively("marian")
    engine = opened(quantize_translation(build(*read_model(model, 40), 20)))
    ids, mask = source_batch(model)
    for row in range(len(ids)):
        one = (ids[[row]], mask[[row]])
        same(engine.write(*one, RULES, 4)[0], beam_search(engine.start(*one), 1, RULES, 4)[0])


def test_the_table_is_not_all_alike() -> None:
    model = lively("bart")
    engine, (ids, mask) = opened(build(*read_model(model, 40), 20)), source_batch(model)
    found = {name: engine.write(ids[:1], mask[:1], rules)[0][0] for name, rules in TABLE.items()}
    assert len({tuple(each.tokens) for each in found.values()}) > len(TABLE) // 2


def test_logits_that_are_no_numbers_are_refused() -> None:
    plan, weights = read_model(tiny_translator("marian"), 40)
    damaged = {**weights, "output.bias": np.full_like(weights["output.bias"], np.nan)}
    with pytest.raises(BundleError, match="NaN or infinite"):
        opened(build(plan, damaged, 20)).write(np.array([[5, 2]]), np.ones((1, 2), np.int64), RULES)


def test_paths_by_hand() -> None:
    # turn 0: 5 and 6 go on from the start; turn 1: 7 goes on from 6, 8 from 5, and 9 ends what 6 began
    paths = _Paths([[5, 6, 3, 4], [9, 7, 8, 2]], [[0, 0, 0, 0], [1, 1, 0, 0]], [[0, 1], [1, 2]])
    assert paths.back(1, 0) == [6, 9]
    assert paths.back(1, 2) == [5, 8]
    assert paths.back(-1, 0) == []
    assert paths.ended([[0, 1], [2, 0]], 2) == [[6, 9], []]


def test_norms_by_hand() -> None:
    rules = replace(RULES, max_length=4, length_penalty=2.0, forced_start=3, forced_end=10)
    assert _norms(rules).tolist() == [4, 9, 16]
