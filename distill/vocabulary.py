"""A tokenizer trained on the data: pieces of words, and bytes for what no piece covers.

It works like SentencePiece (Kudo and Richardson 2018): texts are normalised by Unicode's NFKC, spaces become part of
the pieces (`▁`), and a character that has no piece is written as its UTF-8 bytes, so that every normalised text comes
back from its pieces as it was. Two things do not: a `▁` in the text, which becomes a space, and the names of the
special pieces, which are read as these, as by any tokenizer of this library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, cast

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distill.recipe import VocabularyRecipe

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPECIAL = (PAD, END, UNKNOWN)
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
MARKS = r"▁?[\p{P}<>]+"
"""Punctuation, with the space before it: no piece holds both of a word and of the marks after it, and the name of a
byte in a text (<0x41>) is not read as that byte."""
DIGITS = 6
"""Decimals of a unigram piece's score; what follows differs from process to process."""
LEAST = -30.0
"""The score of bytes, below that of any piece."""


def train_vocabulary(texts: Iterable[str], recipe: VocabularyRecipe) -> PreTrainedTokenizerBase:
    """A tokenizer whose pieces fit `texts`, in any order of them.

    It has `recipe.size` pieces at most, ids in this order: <pad>, </s>, <unk>, 256 bytes, then the pieces. The same
    texts give the same bpe pieces. Of unigram pieces that are equally useful the trainer keeps now these, now those:
    it sums in an order that differs from process to process, so whoever needs the same one again has to store it.
    """
    trained = _shaped(models.Unigram() if recipe.type == "unigram" else models.BPE())
    room = recipe.size - len(SPECIAL) - len(BYTES)
    trained.train_from_iterator(sorted(set(texts)), _trainer(recipe.type, room))
    found = json.loads(trained.to_str())["model"]
    made = _shaped(_unigram(found) if recipe.type == "unigram" else _bpe(found))
    made.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _shaped(model: Any) -> Tokenizer:
    """A tokenizer with everything around the model."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace("▁", "always", True), pre_tokenizers.Split(Regex(MARKS), "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A $B {END}", special_tokens=[(END, SPECIAL.index(END))]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _trainer(kind: str, room: int) -> Any:
    """What chooses up to `room` pieces."""
    if kind == "unigram":
        return trainers.UnigramTrainer(
            vocab_size=room + 1, special_tokens=[UNKNOWN], unk_token=UNKNOWN, show_progress=False
        )
    return trainers.BpeTrainer(vocab_size=room, show_progress=False)


def _unigram(found: dict[str, Any]) -> Any:
    """The pieces by their rounded score, equal ones by the alphabet."""
    pieces = [(piece, round(score, DIGITS)) for piece, score in found["vocab"] if piece != UNKNOWN]
    ranked = sorted(pieces, key=lambda entry: (-entry[1], entry[0]))
    first = [*((piece, 0.0) for piece in SPECIAL), *((piece, LEAST) for piece in BYTES)]
    return models.Unigram([*first, *ranked], SPECIAL.index(UNKNOWN), byte_fallback=True)


def _bpe(found: dict[str, Any]) -> Any:
    """The same merges, ids moved behind special pieces and bytes."""
    pieces = sorted(found["vocab"], key=found["vocab"].__getitem__)
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *BYTES, *pieces])}
    merges = [(left, right) for left, right in found["merges"]]
    return models.BPE(vocabulary, merges, unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True)


def tokenizer_sum(tokenizer: PreTrainedTokenizerBase) -> str:
    """The sha256 of what decides how a text is divided and numbered; padding and truncation do not count."""
    value = json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())
    kept = {key: part for key, part in value.items() if key not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
