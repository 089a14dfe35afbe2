"""A tokenizer with the pieces that texts use: the same division of these texts, other numbers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from distill.checkpoint import load_tokenizer
from distill.errors import CheckpointError, DataError
from distill.pieces import MODELS, Form, inside, needed, smaller, vocabulary_of
from distill.two_sided import TwoSidedTokenizer

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
    divided = _divided(tokenizer, different)
    used = set(tokenizer.convert_ids_to_tokens(np.unique(np.concatenate(divided)).tolist()))
    made, ids = _rebuilt(tokenizer, form, used, also)
    wrong = _otherwise(different, divided, made, ids)
    if wrong:
        used |= inside(form, _words(tokenizer, wrong))
        made, ids = _rebuilt(tokenizer, form, used, also)
        wrong = _otherwise(different, divided, made, ids)
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
    if isinstance(tokenizer, TwoSidedTokenizer):
        raise CheckpointError("its sources and targets are divided by two tokenizers; its vocabulary cannot shrink")
    form: Form = json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())
    if form["model"]["type"] not in MODELS:
        raise CheckpointError(f"{form['model']['type']} vocabularies cannot shrink; supported: {', '.join(MODELS)}")
    return form


def _divided(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """The ids of each text, special tokens among them; so many texts at once that what comes with them has room."""
    return [
        np.asarray(ids, dtype=np.int32)
        for start in range(0, len(texts), BATCH)
        for ids in tokenizer(list(texts[start : start + BATCH]), verbose=False)["input_ids"]
    ]


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


def _otherwise(
    texts: Sequence[str], divided: Sequence[NDArray[np.int32]], after: PreTrainedTokenizerBase, ids: Sequence[int]
) -> list[str]:
    """The texts whose ids are not those that they were `divided` into, renumbered."""
    number = np.full(max(ids[-1], *(int(old.max(initial=0)) for old in divided)) + 1, -1, np.int32)
    number[list(ids)] = np.arange(len(ids))
    rows = zip(texts, divided, _divided(after, texts), strict=True)
    return [text for text, old, new in rows if not np.array_equal(number[old], new)]


def _words(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[str]:
    """The words of texts as the tokenizer's model sees them."""
    own = cast(Any, tokenizer).backend_tokenizer
    for text in texts:
        normal = own.normalizer.normalize_str(text) if own.normalizer else text
        yield from (word for word, _ in own.pre_tokenizer.pre_tokenize_str(normal)) if own.pre_tokenizer else [normal]
