"""Pairs of sentences from Debian's package descriptions, which volunteers translate: `python recipes/debian_corpus.py`.

apt fetches the descriptions of two languages; this joins them by their checksum, then paragraph by paragraph and
sentence by sentence. Where two paragraphs do not have as many sentences, they stay whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\W\d_a-z]|[\"'(])")
FIELD = re.compile(r"Description-(\w+): ?(.*)")
MOST_WORDS = 30

Pair = tuple[str, str]


def descriptions(lines: Iterable[str]) -> dict[str, list[str]]:
    """The paragraphs of each description, by its checksum; the first paragraph is the package's one-line summary."""
    found: dict[str, list[str]] = {}
    name, paragraphs = "", [""]
    for line in [*lines, ""]:
        match = FIELD.match(line)
        if match and match[1] == "md5":
            name = match[2]
        elif match:
            paragraphs = [match[2], ""]
        elif line.startswith(" "):
            _add(paragraphs, line)
        elif not line.strip() and name:
            found.setdefault(name, [text for text in paragraphs if text])
            name, paragraphs = "", [""]
    return found


def _add(paragraphs: list[str], line: str) -> None:
    """Put a line of a description where it belongs: a dot ends a paragraph, an indented line begins one."""
    text = line.strip()
    if text == ".":
        paragraphs.append("")
    elif line.startswith("  "):
        paragraphs += [text, ""]
    else:
        paragraphs[-1] = f"{paragraphs[-1]} {text}".strip()


def pairs(source: dict[str, list[str]], target: dict[str, list[str]]) -> Iterator[Pair]:
    """Sentences that translate each other, each pair once, in the order of the source."""
    seen = set()
    for name, paragraphs in source.items():
        others = target.get(name, [])
        if len(others) != len(paragraphs):
            continue
        for pair in _sentences(paragraphs, others):
            if pair not in seen and pair[0] != pair[1] and all(map(_fits, pair)):
                seen.add(pair)
                yield pair


def rest(source: dict[str, list[str]], known: Iterable[Pair]) -> Iterator[str]:
    """Sentences of the source that are in no pair, each once: for a teacher to translate."""
    seen = {sentence for sentence, _ in known}
    for paragraphs in source.values():
        for sentence in (sentence for paragraph in paragraphs for sentence in SENTENCE_END.split(paragraph)):
            if sentence not in seen and _fits(sentence):
                seen.add(sentence)
                yield sentence


def _fits(sentence: str) -> bool:
    """Whether this is more than a word and not too much."""
    return 1 < len(sentence.split()) <= MOST_WORDS


def _sentences(paragraphs: list[str], others: list[str]) -> Iterator[Pair]:
    """Paragraphs cut into sentences where both sides have as many."""
    for left, right in zip(paragraphs, others, strict=True):
        cut, other = SENTENCE_END.split(left), SENTENCE_END.split(right)
        yield from zip(cut, other, strict=True) if len(cut) == len(other) else [(left, right)]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("corpus.tsv"), show_default=True)
@click.option("--rest", "rest_of", type=click.Path(path_type=Path), help="Also write sentences without a translation.")
def corpus(source: Path, target: Path, output: Path, rest_of: Path | None) -> None:
    """Write the pairs of two description files (SOURCE and TARGET language) as `source TAB target` lines.

    What --rest writes, a sentence a line, is for `data.unlabelled`.
    """
    sides = [descriptions(path.read_text(encoding="utf-8").split("\n")) for path in (source, target)]
    found = list(pairs(*sides))
    _write(["\t".join(pair) for pair in found], "pairs", output)
    if rest_of is not None:
        _write(list(rest(sides[0], found)), "sentences", rest_of)


def _write(lines: list[str], what: str, output: Path) -> None:
    """Write lines and say how many."""
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo(f"wrote {len(lines)} {what} to {output}")


if __name__ == "__main__":
    corpus()
