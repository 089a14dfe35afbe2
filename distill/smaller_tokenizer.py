"""A tokenizer with the pieces that texts use: the same division of these texts, other numbers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from distill.checkpoint import load_tokenizer
from distill.errors import CheckpointError, DataError
from distill.pieces import MODELS, Form, inside, needed, smaller, vocabulary_of

FIRST = 8
"""Ids below this stay as they are: transformers' classes count on them (`unk_id` of T5's and mBART's tokenizers)."""
BATCH = 10_000
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"


def shrink_tokenizer(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], also: Collection[int] = ()
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """The tokenizer with the pieces that `texts` use and those with the ids `also`; the old id of each new one.

    Every text is divided as before; all are tried. See `distill.pieces` for what is kept besides, and why it holds.

    Raises:
        CheckpointError: the tokenizer has no tokenizer.json form, or divides a text otherwise.
        DataError: there is no text.
    """
    form, different = _form(tokenizer), list(dict.fromkeys(text for text in texts if text.strip()))
    if not different:
        raise DataError("there is no text to keep a vocabulary for")
    used = _used(tokenizer, different)
    made, ids = _rebuilt(tokenizer, form, used, also)
    wrong = _divided_otherwise(tokenizer, made, ids, different)
    if wrong:
        used |= inside(form, _words(tokenizer, wrong))
        made, ids = _rebuilt(tokenizer, form, used, also)
        wrong = _divided_otherwise(tokenizer, made, ids, different)
    if wrong:
        raise CheckpointError(
            "without the pieces that no text uses the tokenizer divides texts otherwise; its vocabulary cannot shrink",
            [text[:80] for text in wrong],
        )
    return made, ids


def _form(tokenizer: PreTrainedTokenizerBase) -> Form:
    """The tokenizer as tokenizer.json has it.

    Raises:
        CheckpointError: it has no such form, or one whose model is not known.
    """
    if not tokenizer.is_fast:
        raise CheckpointError(f"{type(tokenizer).__name__} has no tokenizer.json form; its vocabulary cannot shrink")
    form: Form = json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())
    if form["model"]["type"] not in MODELS:
        raise CheckpointError(f"{form['model']['type']} vocabularies cannot shrink; supported: {', '.join(MODELS)}")
    return form


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """So many texts that their pieces fit into memory."""
    for start in range(0, len(texts), BATCH):
        yield list(texts[start : start + BATCH])


def _used(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> set[str]:
    """The pieces that texts are divided into."""
    found: set[int] = set()
    for batch in _batches(texts):
        found.update(*tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"])
    return set(tokenizer.convert_ids_to_tokens(sorted(found)))


def _rebuilt(
    tokenizer: PreTrainedTokenizerBase, form: Form, used: Collection[str], also: Collection[int]
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """The tokenizer with the pieces that `used` ones need, read from files like any other, and the ids it kept."""
    known = vocabulary_of(form)
    kept = {known[piece] for piece in needed(form, used)} | set(also) | set(range(FIRST))
    ids = sorted(kept & set(known.values()))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tokenizer.save_pretrained(folder)
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings.pop("added_tokens_decoder", None)  # by their old ids; tokenizer.json has them too
        for path in folder.iterdir():
            path.unlink()
        _write(folder / SETTINGS, settings)
        _write(folder / TOKENIZER, smaller(form, ids))
        return load_tokenizer(folder), ids


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _divided_otherwise(
    before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, ids: Sequence[int], texts: Sequence[str]
) -> list[str]:
    """The texts whose ids, special tokens among them, are not the old ones renumbered."""
    number = {old: new for new, old in enumerate(ids)}
    wrong: list[str] = []
    for batch in _batches(texts):
        rows = (tokenizer(batch, verbose=False)["input_ids"] for tokenizer in (before, after))
        pairs = zip(batch, *rows, strict=True)
        wrong += [text for text, old, new in pairs if [number.get(each) for each in old] != new]
    return wrong


def _words(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[str]:
    """The words of texts as the tokenizer's model sees them."""
    own = cast(Any, tokenizer).backend_tokenizer
    for text in texts:
        normal = own.normalizer.normalize_str(text) if own.normalizer else text
        yield from (word for word, _ in own.pre_tokenizer.pre_tokenize_str(normal)) if own.pre_tokenizer else [normal]
