"""Marian's own tokenizers, two SentencePiece models and one vocabulary, in the form that everything else reads.

The hub's Marian models (opus-mt) come with `source.spm`, `target.spm` and `vocab.json`. A piece's number is its place
in vocab.json, which is not its place in either model. So both sides become unigram tokenizers over the same list of
pieces. What one side's model does not know has a score there that no text is divided by. Only a character that this
model lacks altogether gets the other side's piece for it, as from transformers' MarianTokenizer; of several such in a
row that one makes a single unknown piece.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import import_protobuf

from distill import files
from distill.errors import CheckpointError
from distill.two_sided import TwoSidedTokenizer

SOURCE_MODEL, TARGET_MODEL, VOCABULARY, SETTINGS = "source.spm", "target.spm", "vocab.json", "tokenizer_config.json"
UNIGRAM = 1
PLAIN = 1
"""Kinds in SentencePiece's protobuf: of a model, and of a piece that is neither unknown, control nor unused."""
CHARACTER, LONGER = -1e4, -1e8
"""Scores of pieces that one side's model does not know."""
LANGUAGE = re.compile(r">>.+<<")


def is_marian(folder: Path) -> bool:
    """Whether a folder has Marian's files and no tokenizer.json."""
    needed = (SOURCE_MODEL, TARGET_MODEL, VOCABULARY)
    return not (folder / "tokenizer.json").exists() and all((folder / name).exists() for name in needed)


def read_marian(folder: Path) -> TwoSidedTokenizer:
    """The tokenizer of a Marian model's folder.

    Raises:
        CheckpointError: its files cannot be read, or are of a kind that has no such form.
    """
    pieces = _pieces(folder)
    if _has_separate_vocabularies(folder / SETTINGS):
        raise CheckpointError(f"{folder}: source and target have vocabularies of their own, which is not supported")
    source, target = (_side(folder / name, pieces) for name in (SOURCE_MODEL, TARGET_MODEL))
    return TwoSidedTokenizer(
        source,
        target,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _has_separate_vocabularies(settings: Path) -> bool:
    """Whether the tokenizer's settings say that source and target have a vocabulary each.

    Raises:
        CheckpointError: they cannot be read.
    """
    try:
        return settings.exists() and bool(files.read_json(settings).get("separate_vocabs"))
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{settings} cannot be read: {error}") from error


def _pieces(folder: Path) -> list[str]:
    """The pieces in the order of their numbers.

    Raises:
        CheckpointError: vocab.json does not number its pieces from 0, or lacks the special ones.
    """
    try:
        numbers: dict[str, int] = files.read_json(folder / VOCABULARY)
        ordered = sorted(numbers, key=numbers.__getitem__)
        fits = [numbers[piece] for piece in ordered] == list(range(len(ordered)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / VOCABULARY} cannot be read: {error}") from error
    missing = [token for token in ("</s>", "<unk>", "<pad>") if token not in numbers]
    if not fits or missing:
        raise CheckpointError(f"{folder / VOCABULARY}: expected pieces numbered from 0, with </s>, <unk> and <pad>")
    return ordered


def _side(path: Path, pieces: list[str]) -> Tokenizer:
    """One side's tokenizer over all pieces.

    Raises:
        CheckpointError: it is no unigram model.
    """
    proto = import_protobuf().ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own DecodeError has no public place
        raise CheckpointError(f"{path} is not a SentencePiece model: {error}") from error
    if proto.trainer_spec.model_type != UNIGRAM:
        raise CheckpointError(f"{path}: only SentencePiece's unigram models can be written as tokenizer.json")
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == PLAIN}
    scored = [(piece, scores.get(piece, CHARACTER if len(piece) == 1 else LONGER)) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, pieces.index("<unk>")))
    tokenizer.normalizer = _normalizer(proto)
    apart = not any("▁" in piece[1:] for piece in scores)  # no piece holds two words: they can be divided one by one
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", apart)
    tokenizer.decoder = decoders.Metaspace("▁", "always", apart)
    end = pieces.index("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", end)]
    )
    special = ["</s>", "<unk>", "<pad>", *(piece for piece in pieces if LANGUAGE.fullmatch(piece))]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


def _normalizer(proto: Any) -> Any:
    """SentencePiece's own table of characters, then no space at either end and one between words."""
    table = proto.normalizer_spec.precompiled_charsmap
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    return normalizers.Sequence([*([normalizers.Precompiled(table)] if table else []), *spaces])
