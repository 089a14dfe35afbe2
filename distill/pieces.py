"""A tokenizer.json with fewer pieces that divides the texts it was made for as before.

Everything around the model (normalizer, division into words, added tokens) stays, so that it is enough to look at one
word. Why its pieces stay the same when some of the vocabulary goes:

- Unigram (Kudo 2018) takes the path of pieces with the highest sum of scores (Viterbi). All pieces of that path stay,
  with their scores, so it has the same sum, and every other path of the smaller vocabulary was there before and was no
  better. Between equal sums the earlier beginning of the last piece wins: one that wins now would have won before. A
  character without a piece of its own may be unknown, at the score of the worst piece less ten: which characters these
  are does not change, for whoever has a piece of its own keeps it when it is seen, and the worst piece is kept.
- BPE (Sennrich et al. 2016) joins, of all neighbours in the word that have a merge, those whose merge comes first. The
  merges that it applies stay, in their order, with the pieces that they join and make; so at each turn the first of all
  merges is there, and it is still the first. How a piece comes about depends on the piece alone, for until it is there
  nothing joins across its ends: `_derivation` applies the merges to each piece that is used.
- WordPiece takes the longest piece that fits, again and again. It stays, and none that is longer comes to be. A word
  that ended as unknown may now be divided, because pieces that led astray are gone: whoever calls `needed` has to look,
  and to keep what is `inside` the texts that are divided otherwise. With all pieces kept that occur in a word, any of
  the algorithms sees what it saw before.
- WordLevel looks up whole words. Of words it does not know all are unknown, as before.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import pre_tokenizers

Form = Mapping[str, Any]
"""What tokenizer.json holds."""
MODELS = ("BPE", "Unigram", "WordPiece", "WordLevel")
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))


def vocabulary_of(form: Form) -> dict[str, int]:
    """Every piece and added token with its id."""
    pieces = form["model"]["vocab"]
    listed = isinstance(pieces, list)
    found = {piece: number for number, (piece, _) in enumerate(pieces)} if listed else dict(pieces)
    return found | {token["content"]: token["id"] for token in form["added_tokens"]}


def needed(form: Form, used: Iterable[str]) -> set[str]:
    """The pieces that have to stay so that `used` ones come about as before.

    Kept besides: added tokens, the unknown piece, all bytes, and each character that is seen in `used`, so that words
    that were not seen can be spelled.
    """
    model, known = form["model"], vocabulary_of(form)
    fixed = {token["content"] for token in form["added_tokens"]}
    kept = set(used) - fixed - set(BYTES)
    kept |= set(_letters(model, kept)) | set(_derived(model, kept))
    if model["type"] == "Unigram":
        kept.add(min(model["vocab"], key=lambda entry: float(entry[1]))[0])
        kept |= set() if model["unk_id"] is None else {model["vocab"][model["unk_id"]][0]}
    elif model.get("unk_token") is not None:
        kept.add(model["unk_token"])
    return {piece for piece in (*kept, *fixed, *_bytes(form)) if piece in known}


def inside(form: Form, words: Iterable[str]) -> set[str]:
    """All pieces that occur anywhere in `words`, which are divided and normalised already."""
    model, known = form["model"], vocabulary_of(form)
    longest = max(len(piece) for piece in known)
    found: set[str] = set()
    for word in set(words):
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + longest) + 1):
                found.update(piece for piece in _spellings(model, word[start:end]) if piece in known)
    return found


def smaller(form: Form, ids: Sequence[int]) -> dict[str, Any]:
    """The form with the pieces that have these `ids`, in ascending order; the first gets the id 0.

    BPE keeps each merge whose parts and result it keeps.
    """
    number = {old: new for new, old in enumerate(ids)}
    model = dict(form["model"])
    if isinstance(model["vocab"], list):
        model["vocab"] = [model["vocab"][old] for old in ids if old < len(model["vocab"])]
        model["unk_id"] = None if model["unk_id"] is None else number[model["unk_id"]]
    else:
        model["vocab"] = {piece: number[old] for piece, old in model["vocab"].items() if old in number}
    if "merges" in model:
        model["merges"] = [pair for pair in _pairs(model) if {*pair, _joined(model, *pair)} <= model["vocab"].keys()]
    added = [{**token, "id": number[token["id"]]} for token in form["added_tokens"]]
    around = {"model": model, "added_tokens": added, "post_processor": _renumbered(form["post_processor"], number)}
    return {**form, **around, "truncation": None, "padding": None}


def _renumbered(processor: Any, number: Mapping[int, int]) -> Any:
    """What puts special tokens around a text, with their new ids: templates, pairs `[token, id]`, sequences of both."""
    if processor is None:
        return None
    found = dict(processor)
    for key, value in processor.items():
        if key == "processors":
            found[key] = [_renumbered(each, number) for each in value]
        elif key == "special_tokens":
            found[key] = {
                name: {**token, "ids": [number[old] for old in token["ids"]]} for name, token in value.items()
            }
        elif key in ("sep", "cls"):
            found[key] = [value[0], number[value[1]]]
    return found


def _affixes(model: Form) -> tuple[str, str]:
    """What marks a piece inside of a word (##), and one at its end (</w>); empty where the model has none."""
    return model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""


def _spellings(model: Form, text: str) -> set[str]:
    """How a part of a word may stand in the vocabulary."""
    prefix, suffix = _affixes(model)
    return {text, prefix + text, text + suffix, prefix + text + suffix}


def _letters(model: Form, pieces: Iterable[str]) -> Iterator[str]:
    """Each character of `pieces`, as a piece."""
    prefix, suffix = _affixes(model)
    for letter in set("".join(piece.removeprefix(prefix).removesuffix(suffix) for piece in pieces)):
        yield from _spellings(model, letter)


def _bytes(form: Form) -> Iterable[str]:
    """The pieces that any text can be written with."""
    around = json.dumps([form["normalizer"], form["pre_tokenizer"]])
    return (*BYTES, *pre_tokenizers.ByteLevel.alphabet()) if '"ByteLevel"' in around else BYTES


def _pairs(model: Form) -> list[tuple[str, str]]:
    """BPE's merges in order."""
    return [(left, right) for left, right in model["merges"]]


def _joined(model: Form, left: str, right: str) -> str:
    """The piece that a merge makes."""
    return left + right.removeprefix(_affixes(model)[0])


def _derived(model: Form, pieces: Collection[str]) -> Iterator[str]:
    """For BPE: all pieces that come about on the way to `pieces`."""
    if model["type"] == "BPE":
        ranks = {pair: rank for rank, pair in enumerate(_pairs(model))}
        for piece in pieces:
            yield from _derivation(model, ranks, piece)


def _derivation(model: Form, ranks: Mapping[tuple[str, str], int], piece: str) -> Iterator[str]:
    """The characters of one piece, and what BPE makes of them until no merge is left."""
    prefix, suffix = _affixes(model)
    body = piece.removeprefix(prefix).removesuffix(suffix)
    units = [prefix + letter for letter in body]
    if units and not (prefix and piece.startswith(prefix)):
        units[0] = body[0]
    if units and suffix and piece.endswith(suffix):
        units[-1] += suffix
    yield from units
    while len(units) > 1:
        rank, place = min((ranks.get(pair, len(ranks)), at) for at, pair in enumerate(pairwise(units)))
        if rank == len(ranks):
            return
        units[place : place + 2] = [_joined(model, *units[place : place + 2])]
        yield units[place]
