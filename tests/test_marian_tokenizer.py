"""Marian's files, made by SentencePiece itself, divide texts as transformers' own MarianTokenizer does."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from transformers import MarianTokenizer

from distill.checkpoint import load_tokenizer
from distill.errors import CheckpointError

ENGLISH = [
    "the cat sees a red house", "a dog and the small cat", "red houses are small here", "she sees the dogs again",
    "where is the house of the cat?", "no, it is not here!", "numbers like 12 and 345 too", "the end of the text",
]  # fmt: skip
ITALIAN = [
    "il gatto vede una casa rossa", "un cane e il gatto piccolo", "le case rosse sono piccole qui", "lei rivede i cani",
    "dov'è la casa del gatto?", "no, non è qui!", "anche numeri come 12 e 345", "la fine del testo", "perché è così",
]  # fmt: skip


def model(texts: list[str], **options: Any) -> bytes:
    """A SentencePiece model."""
    made = io.BytesIO()
    settings = {"vocab_size": 60, "minloglevel": 2, "hard_vocab_limit": False, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts * 20), model_writer=made, **settings)
    return made.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as opus-mt models have it: pieces numbered across both languages, <pad> last."""
    place = tmp_path_factory.mktemp("marian")
    pieces = {"</s>": 0, "<unk>": 1, ">>ita<<": 2}
    for name, texts in (("source.spm", ENGLISH), ("target.spm", ITALIAN)):
        data = model(texts)
        (place / name).write_bytes(data)
        made = sentencepiece.SentencePieceProcessor(model_proto=data)
        for number in range(made.get_piece_size()):
            if not made.is_control(number) and not made.is_unknown(number):
                pieces.setdefault(made.id_to_piece(number), len(pieces))
    pieces["<pad>"] = len(pieces)
    (place / "vocab.json").write_text(json.dumps(pieces))
    (place / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "it"}))
    return place


def both(folder: Path) -> tuple[Any, Any]:
    """Ours and transformers'."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends another package, which changes quotation marks
        return load_tokenizer(folder), MarianTokenizer.from_pretrained(folder)


ODD = ["", " ", "  two   cani ", "a\tred\nhouse", "ﬁne Ａ", "catcatcat", ">>ita<< the cat", "12.5 %", "x", "the x"]


@pytest.mark.parametrize("text", ENGLISH + ODD)
def test_sources_are_divided_as_before(text: str, folder: Path) -> None:
    own, theirs = both(folder)
    assert own(text)["input_ids"] == theirs(text)["input_ids"]


@pytest.mark.parametrize("text", ITALIAN + ODD)
def test_targets_are_divided_as_before_and_sources_after_them(text: str, folder: Path) -> None:
    own, theirs = both(folder)
    assert own(text_target=text)["input_ids"] == theirs(text_target=text)["input_ids"]
    assert own(text)["input_ids"] == own([text])["input_ids"][0]
    assert own(ENGLISH)["input_ids"] == theirs(ENGLISH)["input_ids"], "the source's side is back"


def words(texts: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(sorted({word for text in texts for word in text.split()})), max_size=12).map(
        " ".join
    )


@given(words(ENGLISH), words(ITALIAN))
def test_any_words_of_either_language_and_back(folder: Path, english: str, italian: str) -> None:
    own, theirs = both(folder)
    sources, targets = own(english)["input_ids"], own(text_target=italian)["input_ids"]
    assert sources == theirs(english)["input_ids"]
    assert targets == theirs(text_target=italian)["input_ids"]
    for ids in (sources, targets):
        assert own.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


def test_of_several_unknown_characters_ours_keeps_what_the_vocabulary_has(folder: Path) -> None:
    own, theirs = both(folder)
    assert theirs.convert_ids_to_tokens(theirs("v'è")["input_ids"]) == ["▁", "<unk>", "</s>"]
    assert "è" in own.convert_ids_to_tokens(own("v'è")["input_ids"])


def test_written_and_read_again(folder: Path, tmp_path: Path) -> None:
    own = load_tokenizer(folder)
    own.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    for text in ENGLISH + ITALIAN:
        assert again(text)["input_ids"] == own(text)["input_ids"]
        assert again(text_target=text)["input_ids"] == own(text_target=text)["input_ids"]
    assert [again.pad_token_id, again.eos_token_id, again.unk_token_id] == [len(own) - 1, 0, 1]
    assert len(again) == len(own)


FAULTS: list[tuple[str, Any, str]] = [
    ("vocab.json", b"{", "cannot be read"),
    ("vocab.json", json.dumps({"a": 0, "</s>": 1}).encode(), "expected pieces numbered from 0, with </s>"),
    ("vocab.json", json.dumps({"</s>": 0, "<unk>": 1, "<pad>": 7}).encode(), "numbered from 0"),
    ("source.spm", b"no model", "not a SentencePiece model"),
    ("source.spm", lambda: model(ENGLISH, model_type="bpe"), "only SentencePiece's unigram models"),
    ("tokenizer_config.json", b"[", "cannot be read"),
    ("tokenizer_config.json", json.dumps({"separate_vocabs": True}).encode(), "vocabularies of their own"),
]


@pytest.mark.parametrize(("name", "data", "message"), FAULTS)
def test_files_that_do_not_fit(name: str, data: Any, message: str, folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(data() if callable(data) else data)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(tmp_path)
