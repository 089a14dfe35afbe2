"""Small tokenizers of each kind of model, made by hand, and one of mBART-50's shape."""

from __future__ import annotations

import struct
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import MBart50Tokenizer, NllbTokenizer, PreTrainedTokenizerFast, T5Tokenizer, XLMRobertaTokenizer

BYTES = [f"<0x{value:02X}>" for value in range(256)]
FILLER = [f"<filler{number}>" for number in range(8)]
"""Pieces for the ids that always stay, so that the others can be seen to go."""


def fast(model: Any, before: Any, **names: str) -> Any:
    """A tokenizer around a model."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = before
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def unigram(pieces: dict[str, float], worst: float = -9.0, byte_fallback: bool = False) -> Any:
    """Unigram with these scores; the piece `zzz` has the worst one."""
    rows = [("<unk>", 0.0), *((piece, 0.0) for piece in FILLER[1:]), *pieces.items(), ("zzz", worst)]
    rows += [(piece, -12.0) for piece in BYTES] if byte_fallback else []
    return fast(models.Unigram(rows, 0, byte_fallback), pre_tokenizers.Metaspace(), unk_token="<unk>")


def bpe(merges: list[tuple[str, str]], letters: str, byte_fallback: bool = False, **options: Any) -> Any:
    """BPE with these merges of these letters."""
    prefix = options.get("continuing_subword_prefix") or ""
    pieces = [*FILLER, *letters.split(), *(left + right.removeprefix(prefix) for left, right in merges)]
    pieces += BYTES if byte_fallback else []
    numbers = {piece: number for number, piece in enumerate(dict.fromkeys(["<unk>", *pieces]))}
    model = models.BPE(numbers, merges, unk_token="<unk>", byte_fallback=byte_fallback, **options)
    return fast(model, pre_tokenizers.Metaspace(), unk_token="<unk>")


def wordpiece(pieces: str) -> Any:
    """WordPiece with these pieces."""
    numbers = {piece: number for number, piece in enumerate(["[UNK]", *FILLER[1:], *pieces.split()])}
    return fast(models.WordPiece(numbers, unk_token="[UNK]"), pre_tokenizers.Whitespace(), unk_token="[UNK]")


def charsmap() -> bytes:
    """A precompiled SentencePiece normalizer that makes a tab a space (a trie of one character, then its text)."""
    units = [0] * 256
    units[9] = 9 | 1 << 8 | 16 << 10
    return struct.pack("<I256I", 1024, *units) + b" \0"


SCORES = {
    **{"▁": -3.0, "▁the": -2.0, "▁cat": -4.0, "▁c": -5.0, "at": -5.5, "▁il": -3.5, "▁gatto": -6.0, "gat": -7.0},
    **{"to": -6.5, "▁sleeps": -7.0, "▁dorme": -7.5, "s": -5.0, "▁dog": -8.0, "▁cane": -8.5, "lo": -9.0},
    **{letter: -10.0 - number / 8 for number, letter in enumerate("abcdefghilmnoprtz.é")},
}


def mbart50(**more: float) -> Any:
    """A tokenizer as `transformers` builds for mBART-50: Unigram, metaspace, 52 languages, a precompiled normalizer."""
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

    special = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    codes = [(code, 0.0) for code in (*FAIRSEQ_LANGUAGE_CODES, "<mask>")]
    return MBart50Tokenizer(
        vocab=[*special, *SCORES.items(), *more.items(), *codes],
        _spm_precompiled_charsmap=charsmap(),
        src_lang="en_XX",
        tgt_lang="it_IT",
    )


def t5() -> Any:
    """A tokenizer as `transformers` builds for T5: Unigram and sentinels."""
    special = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    sentinels = [(f"<extra_id_{number}>", 0.0) for number in range(9, -1, -1)]
    return T5Tokenizer(vocab=[*special, *SCORES.items(), *sentinels], extra_ids=10)


def xlm_roberta() -> Any:
    """A tokenizer as `transformers` builds for XLM-RoBERTa."""
    special = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    return XLMRobertaTokenizer(vocab=[*special, *SCORES.items(), ("<mask>", 0.0)])


def nllb() -> Any:
    """A tokenizer as `transformers` builds for NLLB: BPE and 202 languages."""
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("c", "a"), ("ca", "t"), ("▁", "cat"), ("o", "g")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *"▁thecadogsilm", *(left + right for left, right in merges), *FILLER]
    numbers = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return NllbTokenizer(vocab=numbers, merges=merges, src_lang="eng_Latn", tgt_lang="ita_Latn")


def byte_level() -> Any:
    """A byte-level BPE tokenizer as RoBERTa and BART have it, trained on a few words."""
    from tokenizers import trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.normalizer = normalizers.NFC()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[*special, "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sleeps on the mat", "il gatto dorme sul tappeto perché è stanco"], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="<mask>", **names)
