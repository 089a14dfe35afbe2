"""sacrebleu's numbers with sacrebleu's signatures."""

from __future__ import annotations

import pytest

from distill.bleu import corpus_score, sentence_scorer

PERFECT = ["the cat sat on the mat", "a dog"]


@pytest.mark.parametrize(
    ("metric", "language", "signature"),
    [
        ("bleu", "it", "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"),
        ("bleu", "it_IT", "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"),
        ("bleu", None, "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"),
        ("bleu", "zh_CN", "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp"),
        ("bleu", "ja_XX", "nrefs:1|case:mixed|eff:no|tok:char|smooth:exp"),
        ("chrf", "it", "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no"),
    ],
)
def test_what_is_perfect_and_what_the_number_means(metric: str, language: str | None, signature: str) -> None:
    value, told = corpus_score(metric, PERFECT, PERFECT, language)
    assert value == pytest.approx(100)
    assert told.startswith(signature + "|version:")


def test_bleu_by_hand() -> None:
    # matches of 1 to 4 words: 5 of 6, 3 of 5, 2 of 4, 1 of 3; equal lengths
    value, _ = corpus_score("bleu", ["the cat sat on a mat"], ["the cat sat on the mat"])
    assert value == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_a_sentence_more_like_the_reference_scores_higher(metric: str) -> None:
    score = sentence_scorer(metric)
    found = [score(text, "the cat sat on the mat") for text in ("a dog", "the cat", "the cat sat on the mat")]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(100)
