"""The teacher's translations on disk, found again by the example's id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from distill import files
from distill.errors import DataError
from distill.words import Words, joined

TEXTS = "translations.jsonl"
WORDS = "words.safetensors"
ABOUT = "signals.json"
FORMAT = 1


@dataclass(frozen=True)
class Translations:
    """What a teacher translated.

    `ids` are example ids (16 hex digits), `texts` the translations that were kept, `ended` whether each came to an end
    of its own, `words` the teacher's distributions at their words, if it was asked for them. `teacher` is the sha256
    of the teacher's weights, `tokenizer` that of its tokenizer.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    ended: tuple[bool, ...]
    words: Words | None
    teacher: str
    tokenizer: str

    def rows(self, ids: Sequence[str]) -> list[int]:
        """The places of these examples.

        Raises:
            DataError: examples about which the teacher was not asked.
        """
        places = {example: place for place, example in enumerate(self.ids)}
        unknown = [example for example in ids if example not in places]
        if unknown:
            raise DataError(f"{len(unknown)} examples have no translations: label them again with this data", unknown)
        return [places[example] for example in ids]


def together(parts: Sequence[Translations]) -> Translations:
    """The translations of several shards by one teacher, in order."""
    words = [part.words for part in parts if part.words is not None]
    return Translations(
        tuple(example for part in parts for example in part.ids),
        tuple(text for part in parts for text in part.texts),
        tuple(end for part in parts for end in part.ended),
        joined(words) if words else None,
        parts[0].teacher,
        parts[0].tokenizer,
    )


def write(found: Translations, folder: Path) -> None:
    """Write translations into `folder`."""
    rows = zip(found.ids, found.texts, found.ended, strict=True)
    lines = (json.dumps({"id": name, "text": text, "ended": end}, ensure_ascii=False) for name, text, end in rows)
    (folder / TEXTS).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    about: dict[str, Any] = {"format": FORMAT, "teacher": found.teacher, "tokenizer": found.tokenizer}
    if found.words is not None:
        words = found.words
        arrays = {"pieces": words.pieces, "logs": words.logs, "others": words.others, "starts": words.starts}
        save_file(arrays, folder / WORDS)
        about["temperature"] = words.temperature
    files.write_json(folder / ABOUT, about)


def read(folder: Path) -> Translations:
    """Read what `write` wrote.

    Raises:
        DataError: the folder does not hold whole translations.
    """
    try:
        about = files.read_json(folder / ABOUT)
        lines = [files.parse_json(line) for line in (folder / TEXTS).read_bytes().splitlines()]
        words = _read_words(folder, float(about["temperature"])) if "temperature" in about else None
        found = Translations(
            tuple(str(line["id"]) for line in lines),
            tuple(str(line["text"]) for line in lines),
            tuple(bool(line["ended"]) for line in lines),
            words,
            str(about["teacher"]),
            str(about["tokenizer"]),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder} holds no readable translations: {error}; label again") from error
    problem = _problem(words, len(lines)) if words is not None else None
    if problem:
        raise DataError(f"{folder} holds {problem}; label again")
    return found


def _read_words(folder: Path, temperature: float) -> Words:
    """The arrays as words."""
    tensors = load_file(folder / WORDS)
    return Words(tensors["pieces"], tensors["logs"], tensors["others"], tensors["starts"], temperature)


def _problem(words: Words, rows: int) -> str | None:
    """What does not fit between words and translations."""
    count = len(words.pieces)
    if words.logs.shape != words.pieces.shape or words.pieces.ndim != 2 or words.others.shape != (count,):
        return f"pieces {words.pieces.shape} for log-probabilities {words.logs.shape} and {words.others.shape}"
    ends = words.starts
    if ends.shape != (rows + 1,) or ends[0] != 0 or ends[-1] != count or (np.diff(ends) < 0).any():
        return f"{count} words that do not add up to {rows} translations"
    return None if np.isfinite(words.logs).all() else "log-probabilities that are NaN or infinite"
