"""What a translation model wrote, and the rules under which all of them write alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

from export.decoding import Decoding


@dataclass(frozen=True, slots=True)
class Written:
    """A translation, how many tokens it took (start and end aside), and whether only the length limit ended it."""

    text: str
    tokens: int
    stopped: bool


def searched(rules: Decoding, beams: int) -> Decoding:
    """A model's rules with a search that is the same for all models; only its special tokens stay its own."""
    return replace(rules, beams=beams, length_penalty=1.0, no_repeat_ngram_size=0)


def of_length(rules: Decoding, length: int) -> Decoding:
    """Rules under which exactly `length` tokens are written, greedily."""
    suppressed = tuple(sorted({*rules.suppressed, rules.end}))
    return replace(searched(rules, 1), max_length=length, forced_end=None, suppressed=suppressed)
