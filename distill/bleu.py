"""BLEU and chrF by sacrebleu, from 0 to 100, each with the signature that says how it was computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char", "th": "char"}
"""How BLEU divides the words of languages that do not, or hardly, use spaces; all others: as WMT does (13a)."""


def corpus_score(
    metric: str, hypotheses: Sequence[str], references: Sequence[str], language: str | None = None
) -> tuple[float, str]:
    """The score of a whole corpus, and its signature; `language` is the target's code (`it`, `it_IT`)."""
    found = judge(metric, language)
    value = float(found.corpus_score(list(hypotheses), [list(references)]).score)
    return value, str(found.get_signature().format())


def sentence_scorer(metric: str, language: str | None = None) -> Callable[[str, str], float]:
    """Scores a sentence against one reference; BLEU with smoothed counts and only as long n-grams as there are."""
    found = CHRF() if metric == "chrf" else BLEU(effective_order=True, tokenize=_tokenizer(language))
    return lambda hypothesis, reference: float(found.sentence_score(hypothesis, [reference]).score)


def judge(metric: str, language: str | None = None) -> Any:
    """The metric by its name, set up for a target language."""
    return CHRF() if metric == "chrf" else BLEU(tokenize=_tokenizer(language))


def _tokenizer(language: str | None) -> str:
    """How BLEU divides words."""
    return TOKENIZERS.get((language or "").strip("_")[:2].lower(), "13a")
