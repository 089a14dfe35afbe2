"""Answering a stream of lines with a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from distill.errors import DataError
from export.runtime import Prediction, Translation, Translator, load

AT_ONCE = 256


def answers(
    bundle: Path, lines: Iterable[str], threads: int | None, provider: str
) -> Iterator[tuple[str, Prediction | Translation]]:
    """Each line with its answer, in order; a pair's two texts are parted by a tab.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: a line without a tab where the task wants pairs.
    """
    model = load(bundle, threads=threads, provider=provider)
    stream = iter(lines)
    while chunk := list(islice(stream, AT_ONCE)):
        if isinstance(model, Translator):
            yield from zip(chunk, model(chunk), strict=True)
        else:
            texts = [_pair(line) for line in chunk] if model.task.pair else chunk
            yield from zip(chunk, model(texts), strict=True)


def in_words(answer: Prediction | Translation, text: str) -> str:
    """An answer as a line: label, score and text, or the translation alone."""
    if isinstance(answer, Prediction):
        return f"{answer.label}\t{answer.score:.4f}\t{text}"
    return " ".join(answer.text.split())


def _pair(line: str) -> tuple[str, str]:
    """The two texts of a line."""
    first, tab, second = line.partition("\t")
    if not tab:
        raise DataError(f"expected two texts parted by a tab, found {line!r:.60}")
    return first, second
