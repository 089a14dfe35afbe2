"""BLEU and chrF: the same numbers as sacrebleu's, intervals that hold them, differences that are paired."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import DataError
from distill.text_metrics import paired_difference, score

METRICS = ("bleu", "chrf")

REFERENCES = [
    f"the {animal} sat on the {place} today ." for animal in ("cat", "dog", "cow") for place in ("mat", "sea")
]
GOOD = [reference.replace("today", "now") for reference in REFERENCES[:3]] + REFERENCES[3:]
BAD = ["the bird flew over the hill ."] * len(REFERENCES)
CORPUS = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("hypotheses", [GOOD, BAD, REFERENCES, [""] * 6])
def test_the_value_is_sacrebleus(metric: str, hypotheses: list[str]) -> None:
    found = score(metric, hypotheses, REFERENCES)
    assert found.value == pytest.approx(CORPUS[metric](hypotheses, [REFERENCES]).score)
    assert found.n == 6 and found.signature.startswith("nrefs:1|")


def test_a_hand_computed_bleu() -> None:
    # 7 of 8 words, 5 of 7 pairs, 4 of 6 triples, 3 of 5 quadruples; as long as the reference
    found = score("bleu", GOOD[:1], REFERENCES[:1])
    assert found.value == pytest.approx(100 * (7 / 8 * 5 / 7 * 4 / 6 * 3 / 5) ** 0.25)


def test_languages_without_spaces_are_cut_into_characters() -> None:
    assert "|tok:zh|" in score("bleu", ["你好世界"], ["你好世界"], language="zh_CN").signature
    assert score("bleu", ["你好世界啊"], ["你好世界吧"], language="zh").value > 0


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_holds_the_value_and_follows_the_seed(metric: str) -> None:
    found = score(metric, GOOD, REFERENCES, seed=3)
    assert found.low < found.value < found.high
    assert found == score(metric, GOOD, REFERENCES, seed=3)
    assert "seed:3" in found.signature and "resamples:1000" in found.signature


@pytest.mark.parametrize("metric", METRICS)
def test_a_perfect_translation_has_no_width(metric: str) -> None:
    found = score(metric, REFERENCES, REFERENCES)
    assert (found.low, found.value, found.high) == pytest.approx((100, 100, 100))


@pytest.mark.parametrize("metric", METRICS)
def test_differences_are_paired(metric: str) -> None:
    found = paired_difference(metric, GOOD, BAD, REFERENCES)
    assert found.decided and found.low <= found.value <= found.high and found.flipped == 6
    assert found.value == pytest.approx(score(metric, GOOD, REFERENCES).value - score(metric, BAD, REFERENCES).value)
    same = paired_difference(metric, GOOD, GOOD, REFERENCES)
    assert (same.value, same.low, same.high, same.flipped) == (0, 0, 0, 0) and not same.decided


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.sampled_from(METRICS))
def test_any_text_has_a_score_from_0_to_100(texts: list[str], metric: str) -> None:
    found = score(metric, texts, texts[::-1], resamples=20)
    assert np.isfinite([found.low, found.value, found.high]).all()
    assert 0 <= found.low <= found.high <= 100 + 1e-9


@pytest.mark.parametrize(
    ("metric", "hypotheses", "references", "message"),
    [
        ("bleu", [], [], "expected one translation a reference, at least one; found 0 for 0"),
        ("chrf", ["a"], ["a", "b"], "found 1 for 2"),
    ],
)
def test_what_cannot_be_scored(metric: str, hypotheses: list[str], references: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(metric, hypotheses, references)
