"""How a bundle's model is to be decoded: its special tokens, and defaults that a call may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import BundleError, RecipeError
from export.manifest import MANIFEST

MOST_BEAMS = 64
OPTIONS = ("beams", "length_penalty", "max_length", "no_repeat_ngram_size")


@dataclass(frozen=True)
class Decoding:
    """Rules of a model: ids of special tokens, and how its answers are looked for.

    `forced_start` is the first token after `start` (the language, in multilingual models), `forced_end` what stands at
    `max_length`; `suppressed` is never written. `max_length` counts new tokens, the end token among them.
    """

    start: int
    end: int
    pad: int
    max_length: int
    forced_start: int | None = None
    forced_end: int | None = None
    suppressed: tuple[int, ...] = ()
    beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    def to_json(self) -> dict[str, Any]:
        """The rules as JSON values."""
        return {**asdict(self), "suppressed": list(self.suppressed)}

    def among(self, words: NDArray[np.int64]) -> Decoding:
        """These rules where tokens are places in `words`, which are in order; what is not among them needs no rule.

        Raises:
            BundleError: a token without which nothing can be written is not among them.
        """
        ids = [self.start, self.end, self.pad, *(x for x in (self.forced_start, self.forced_end) if x is not None)]
        missing = sorted(set(ids) - set(words.tolist()))
        if missing:
            raise BundleError(f"the model's shortlist lacks tokens that decoding needs: {missing}")
        place = {int(word): index for index, word in enumerate(words)}
        return replace(
            self, start=place[self.start], end=place[self.end], pad=place[self.pad],
            forced_start=None if self.forced_start is None else place[self.forced_start],
            forced_end=None if self.forced_end is None else place[self.forced_end],
            suppressed=tuple(place[token] for token in self.suppressed if token in place),
        )  # fmt: skip

    def changed(self, options: Mapping[str, Any]) -> Decoding:
        """These rules with the options of one call; those that are None stay.

        Raises:
            RecipeError: naming every option that does not fit.
        """
        chosen = {name: value for name, value in options.items() if value is not None}
        problems = [p for name, value in chosen.items() if (p := _option_problem(name, value))]
        longest = chosen.get("max_length", 0)
        if not problems and longest > self.max_length:
            problems.append(f"max_length: this bundle writes at most {self.max_length} tokens, asked for {longest}")
        if problems:
            raise RecipeError("these options do not fit", problems)
        return replace(self, **chosen)


def read_decoding(details: Mapping[str, Any], vocabulary: int) -> Decoding:
    """What bundle.json says under `details.decoding`, read as if a stranger had written it.

    Raises:
        BundleError: naming everything that does not fit.
    """
    value = details.get("decoding")
    if not isinstance(value, dict):
        raise BundleError(f"{MANIFEST} does not say how to decode: expected details.decoding")
    problems = [f"details.decoding.{problem}" for problem in _problems(value, vocabulary)]
    if problems:
        raise BundleError(f"{MANIFEST} does not hold a bundle", problems)
    known = {field.name: value[field.name] for field in fields(Decoding) if field.name in value}
    return Decoding(**{**known, "suppressed": tuple(value.get("suppressed", ()))})


def _problems(value: Mapping[str, Any], vocabulary: int) -> list[str]:
    """Everything that is wrong with the JSON of a decoding."""
    needed = [
        f"{name}: expected an id below {vocabulary}"
        for name in ("start", "end", "pad")
        if not _is_id(value.get(name), vocabulary)
    ]
    maybe = [name for name in ("forced_start", "forced_end") if value.get(name) is not None]
    needed += [f"{name}: expected an id below {vocabulary}" for name in maybe if not _is_id(value[name], vocabulary)]
    suppressed = value.get("suppressed", [])
    if not isinstance(suppressed, list) or not all(_is_id(token, vocabulary) for token in suppressed):
        needed.append(f"suppressed: expected a list of ids below {vocabulary}")
    if "max_length" not in value:
        needed.append("max_length: expected a whole number of at least 1")
    options = [(name, value[name]) for name in OPTIONS if name in value]
    return needed + [problem for name, option in options if (problem := _option_problem(name, option))]


def _option_problem(name: str, value: object) -> str:
    """What is wrong with one option, or nothing."""
    if name == "length_penalty":
        fits = isinstance(value, int | float) and not isinstance(value, bool) and -10 <= value <= 10
        return "" if fits else f"length_penalty: expected a number from -10 to 10, found {value!r}"
    least, most = {"beams": (1, MOST_BEAMS), "max_length": (1, 2**20), "no_repeat_ngram_size": (0, 2**10)}[name]
    fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    return "" if fits else f"{name}: expected a whole number from {least} to {most}, found {value!r}"


def _is_id(value: object, vocabulary: int) -> bool:
    """Whether this is the id of a token."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocabulary
