"""A shortlist holds the likely words, and a model that has one writes nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from translation_models import (
    TASK,
    VOCABULARY,
    lively,
    opened,
    source_batch,
    tiny_translator,
    toy_sources,
    write_translator,
)

from compress.quantization.operators import Int8
from compress.quantization.quantize import quantize
from compress.quantization.shortlist import COMMON_PIECES, lexicon, shortlist
from distill.data import Dataset, Split
from distill.errors import BundleError
from distill.recipe import QuantizeRecipe
from export.decode import search
from export.decoding import Decoding
from export.graph import export
from export.graphs.operators import Standard
from export.runtime import Translator, load_as
from export.seq2seq.build import build
from export.seq2seq.stacks import COMMON, NEAR
from export.seq2seq.weights import read_model
from export.steps import Engine

RULES = Decoding(start=2, end=10, pad=1, max_length=8)
PAIRS = [([5, 6], [15, 16]), ([5], [15]), ([6, 7], [16, 17]), ([7], [17]), ([5, 7], [17, 15])]


def test_model_1_finds_who_becomes_whom() -> None:
    sources, targets, chances = lexicon(PAIRS, 20)
    found = {(int(s), int(t)): p for s, t, p in zip(sources, targets, chances, strict=True)}
    assert {pair for pair, chance in found.items() if chance > 0.8} == {(5, 15), (6, 16), (7, 17)}
    for source in (5, 6, 7):
        assert sum(chance for (s, _), chance in found.items() if s == source) == pytest.approx(1)


def test_one_round_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.quantization.shortlist.ROUNDS", 1)
    sources, targets, chances = lexicon([([0, 1], [2]), ([0], [3])], 4)
    # Each of two sources takes half of target 2; source 0 has target 3 whole: 0.5 / 1.5 and 1 / 1.5.
    assert [*zip(sources, targets, chances.round(6), strict=True)] == [(0, 2, 0.333333), (0, 3, 0.666667), (1, 2, 1.0)]


def test_of_too_many_pairs_some_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.quantization.shortlist.MOST_CELLS", 3)
    sources, targets, _ = lexicon([([place], [place + 10]) for place in range(7)], 20)
    assert [*zip(sources, targets, strict=True)] == [(0, 10), (3, 13), (6, 16)]


def test_what_a_shortlist_holds() -> None:
    rare = [([5], [15])] * 2
    frequent = [([30], list(range(100, 100 + COMMON_PIECES)))] * 3
    found = shortlist([*rare, *frequent], 400, 2, replace(RULES, forced_start=9))
    assert found[COMMON].tolist() == sorted({1, 2, 9, 10, *range(100, 100 + COMMON_PIECES)})
    assert found[NEAR].dtype == np.uint16
    assert found[NEAR][5].tolist() == [5, 15, 10], "itself, its translation, and nothing else but the end"
    assert found[NEAR][30].tolist() == [30, 10, 10], "what every source has is not stored again"


def answers(engine: Engine, ids: NDArray[Any], mask: NDArray[Any], rules: Decoding) -> list[list[int]]:
    """The best translations."""
    step = engine.start(ids, mask)
    if step.words is None:
        return [best.tokens for best, *_ in search(step, len(ids), rules)]
    words, found = step.words, search(step, len(ids), rules.among(step.words))
    return [words[best.tokens].tolist() for best, *_ in found]


@pytest.mark.parametrize("kind", ["marian", "mbart", "t5-gated"])
@pytest.mark.parametrize("operators", [Standard, Int8])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_shortlist_of_all_words_changes_nothing(kind: str, operators: Any, beams: int) -> None:
    model = lively(kind)
    plan, weights = read_model(model, 40)
    every = {NEAR: np.zeros((VOCABULARY, 1), np.uint16), COMMON: np.arange(VOCABULARY)}
    whole, listed = (opened(build(plan, each, 20, operators)) for each in (weights, {**weights, **every}))
    ids, mask = source_batch(model)
    rules = replace(RULES, beams=beams, suppressed=(3, 11))
    assert answers(listed, ids, mask, rules) == answers(whole, ids, mask, rules)
    found, expected = (engine.write(ids[:1], mask[:1], rules)[0] for engine in (listed, whole))
    assert [each.tokens for each in found] == [each.tokens for each in expected]


@pytest.mark.parametrize("beams", [1, 3])
def test_nothing_else_is_written(beams: int) -> None:
    model = lively("bart")
    plan, weights = read_model(model, 40)
    allowed = {1, 2, 10, 20, 21, 22}
    some = {NEAR: np.full((VOCABULARY, 2), (20, 21), np.uint16), COMMON: np.array([1, 2, 10, 22])}
    engine = opened(build(plan, {**weights, **some}, 20))
    ids, mask = source_batch(model)
    found = answers(engine, ids, mask, replace(RULES, beams=beams))
    assert {token for row in found for token in row} <= allowed
    assert {token for (each,) in engine.write(ids, mask, RULES) for token in each.tokens} <= allowed
    free = answers(opened(build(plan, weights, 20)), ids, mask, replace(RULES, beams=beams))
    assert not {token for row in free for token in row} <= allowed


def test_words_that_there_are_not_are_refused() -> None:
    plan, weights = read_model(tiny_translator("bart"), 40)
    some = {NEAR: np.zeros((VOCABULARY, 1), np.uint16), COMMON: np.array([-1, 1, 2, 10])}
    engine = opened(build(plan, {**weights, **some}, 20))
    ids, mask = np.array([[5, 2]]), np.ones((1, 2), np.int64)
    with pytest.raises(BundleError, match="tokens outside of its 50"):
        engine.start(ids, mask)
    engine = opened(build(plan, {**weights, NEAR: some[NEAR], COMMON: np.array([1, 2, 10, VOCABULARY])}, 20))
    for way in (lambda: engine.start(ids, mask), lambda: engine.write(ids, mask, RULES)):
        with pytest.raises(BundleError, match="the model failed"):
            way()


def test_rules_among_words() -> None:
    words = np.array([1, 2, 9, 10, 30])
    found = replace(RULES, forced_start=9, suppressed=(3, 30)).among(words)
    assert (found.start, found.end, found.pad, found.forced_start, found.suppressed) == (1, 3, 0, 2, (4,))
    with pytest.raises(BundleError, match=r"lacks tokens that decoding needs: \[2, 10\]"):
        RULES.among(np.array([1, 9]))


def test_a_bundle_with_a_shortlist(tmp_path: Path) -> None:
    texts = toy_sources(60)
    bundle = export(
        write_translator(tmp_path / "model"),
        tmp_path / "fp32",
        opset=20,
        atol=1e-4,
        examples=Split(texts[:8], None, ()),
    )
    splits = {name: Split(texts, None, (), tuple(reversed(texts))) for name in ("train", "validation", "test")}
    dataset = Dataset(TASK, splits, "x", {}, ())
    loose = QuantizeRecipe(shortlist=4, max_drop=100.0, margin=100.0)
    made = quantize(bundle, tmp_path / "int8", dataset, loose).bundle
    model = load_as(Translator, made.folder)
    assert {"words", "matrix", "scale"} <= set(made.outputs)
    step = model.engine.start(np.array([[5, 1]]), np.ones((1, 2), np.int64))
    assert step.words is not None and len(step.words) < model.limits.rows
    beams = model(list(texts[:6]), beams=3, n_best=2)
    assert all(each.score is not None for each in beams)
    free = {"no_repeat_ngram_size": 0, "batch_tokens": 1}  # with blocked repeats the loop would not be asked
    in_loop, in_steps = (model(list(texts[:6]), scores=scores, **free) for scores in (False, True))
    assert [each.text for each in in_loop] == [each.text for each in in_steps]
