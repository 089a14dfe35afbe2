"""Smaller vocabularies divide what they were made for as before."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import toy_tokenizer
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from translation_models import toy_translation_tokenizer
from vocabularies import BYTES, bpe, byte_level, mbart50, nllb, t5, unigram, wordpiece, xlm_roberta

from distill.checkpoint import load_tokenizer
from distill.errors import CheckpointError, DataError
from distill.recipe import VocabularyRecipe
from distill.smaller_tokenizer import FIRST, shrink_tokenizer
from distill.vocabulary import train_vocabulary

WORDS = "the cat sleeps il gatto dorme dog cane cats gattone the. città perché NA 007 ☃ 🙂 日本 <mask> en_XX film story"
SENTENCES = [" ".join(WORDS.split()[start : start + 4]) for start in range(12)]
WORD_MERGES = [("t", "h"), ("th", "e"), ("▁", "the"), ("a", "t"), ("c", "at"), ("▁", "cat"), ("▁cat", "s"), ("h", "e")]


def with_a_word(tokenizer: Any) -> Any:
    """The tokenizer with a word that its model does not have."""
    tokenizer.add_tokens(["perché"])
    return tokenizer


TOKENIZERS: dict[str, Any] = {
    "mbart-50": mbart50(),
    "t5": t5(),
    "nllb": nllb(),
    "xlm-roberta": xlm_roberta(),
    "byte-level": byte_level(),
    "bpe with bytes": train_vocabulary(SENTENCES, VocabularyRecipe(size=320)),
    "unigram with bytes": train_vocabulary(SENTENCES, VocabularyRecipe(size=320, type="unigram")),
    "bpe without bytes": bpe(WORD_MERGES, "▁ t h e a c s o l d i g"),
    "wordpiece": toy_tokenizer(),
    "wordpiece with a word added": with_a_word(toy_tokenizer()),
    "unigram with a template": toy_translation_tokenizer(),
}


def expect_same(before: Any, after: Any, ids: list[int], texts: list[str]) -> None:
    """The same pieces, and the ids renumbered, alone and in a pair."""
    number = {old: new for new, old in enumerate(ids)}
    assert [after.tokenize(text) for text in texts] == [before.tokenize(text) for text in texts]
    for text in texts:
        for words in ({"text": text}, {"text_target": text}, {"text": text, "text_pair": texts[0]}):
            assert after(**words).input_ids == [number[old] for old in before(**words).input_ids]
        assert after.decode(after(text).input_ids) == before.decode(before(text).input_ids)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_kept_sentences_and_what_goes(kind: str, tmp_path: Any) -> None:
    before, texts = TOKENIZERS[kind], ["the cat sleeps", "il gatto", "a\tfilm"]
    after, ids = shrink_tokenizer(before, texts)
    assert len(after) == len(ids) == max(after.get_vocab().values()) + 1 < len(before)
    assert ids[:FIRST] == list(range(FIRST))
    assert after.special_tokens_map == before.special_tokens_map
    assert type(after) is type(before) or type(before) in type(after).__mro__
    expect_same(before, after, ids, texts)
    after.save_pretrained(tmp_path)
    expect_same(before, load_tokenizer(tmp_path), ids, texts)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=5).map(" ".join), min_size=1, max_size=4))
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_random_sentences(kind: str, texts: list[str]) -> None:
    after, ids = shrink_tokenizer(TOKENIZERS[kind], texts)
    expect_same(TOKENIZERS[kind], after, ids, texts)
    again, same = shrink_tokenizer(after, texts)
    assert len(same) == len(ids) and tokens(again) == tokens(after), "what is smallest stays"


def tokens(tokenizer: Any) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))


LETTERS = st.text("abc", min_size=1, max_size=3)
TEXTS = st.lists(st.text("abcd ", min_size=1, max_size=9), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(LETTERS | LETTERS.map("▁{}".format), st.sampled_from([-1.0, -1.5, -2.0, -20.0]), min_size=1), TEXTS
)
@example({"ab": -1.0, "a": -2.0, "abc": -20.0}, ["abd", "ab"])
def test_any_unigram_with_equal_scores_and_unknown_letters(scores: dict[str, float], texts: list[str]) -> None:
    assume(any(text.strip() for text in texts))
    before = unigram(scores, worst=-3.0)
    after, ids = shrink_tokenizer(before, texts)
    expect_same(before, after, ids, texts)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_bpe(data: st.DataObject) -> None:
    pieces, merges = [*"▁abc"], [("a", "b")]
    for _ in range(data.draw(st.integers(1, 8))):
        pair = (data.draw(st.sampled_from(pieces[1:])), data.draw(st.sampled_from(pieces)))
        merges += [] if pair in merges else [pair]
        pieces.append("".join(pair))
    words = st.lists(st.sampled_from([*pieces, "d"]), min_size=1, max_size=3).map("".join)
    texts = data.draw(st.lists(words, min_size=1, max_size=3))
    assume(any(text.strip("▁") for text in texts))
    before = bpe(merges, "▁ a b c", byte_fallback=data.draw(st.booleans()), fuse_unk=data.draw(st.booleans()))
    after, ids = shrink_tokenizer(before, texts)
    expect_same(before, after, ids, texts)


@settings(max_examples=60, deadline=None)
@given(st.lists(LETTERS | LETTERS.map("##{}".format), min_size=1, max_size=9, unique=True), TEXTS)
@example(["abc", "ab", "##cd", "d"], ["abcd", "ab", "dcd"])
def test_any_wordpiece(pieces: list[str], texts: list[str]) -> None:
    assume(any(text.strip() for text in texts))
    before = wordpiece(" ".join(pieces))
    after, ids = shrink_tokenizer(before, texts)
    expect_same(before, after, ids, texts)


def test_a_word_that_was_unknown_stays_unknown() -> None:
    before, text = wordpiece("abc ab ##cd cd ##c x y"), "abcd ab xcd"
    assert before.tokenize(text) == ["[UNK]", "ab", "x", "##cd"]
    assert wordpiece("ab ##cd").tokenize("abcd") == ["ab", "##cd"], "without abc it would be known"
    after, _ = shrink_tokenizer(before, [text])
    assert after.tokenize(text) == ["[UNK]", "ab", "x", "##cd"]
    assert "abc" in after.get_vocab() and "y" not in after.get_vocab()


def test_an_unknown_letter_costs_what_it_did() -> None:
    before = unigram({"▁": -1, "ab": -20, "b": -20, "c": -20, "bc": -1}, worst=-60)
    assert before.tokenize("abc bc") == ["▁", "ab", "c", "▁", "bc"]
    assert unigram({"▁": -1, "ab": -20, "c": -20, "bc": -1}, worst=-20).tokenize("abc") == ["▁", "a", "bc"]
    after, _ = shrink_tokenizer(before, ["abc bc"])
    assert after.tokenize("abc bc") == ["▁", "ab", "c", "▁", "bc"]


def test_words_that_were_not_seen_can_be_spelled() -> None:
    after, _ = shrink_tokenizer(mbart50(), ["the cat sleeps on"])
    assert after.tokenize("the steep") == ["▁the", "▁", "s", "t", "e", "e", "p"]
    after, _ = shrink_tokenizer(train_vocabulary(SENTENCES, VocabularyRecipe(size=320)), ["the cat"])
    assert after.decode(after("🙂 日本").input_ids, skip_special_tokens=True) == "🙂 日本"


def test_ids_that_are_asked_for_stay() -> None:
    before = mbart50()
    dog = before.convert_tokens_to_ids("▁dog")
    after, ids = shrink_tokenizer(before, ["the cat"], also={dog})
    assert dog in ids and "▁dog" in after.get_vocab()


def test_a_language_that_was_set() -> None:
    before = mbart50()
    before.src_lang, before.tgt_lang = "it_IT", "en_XX"
    after, ids = shrink_tokenizer(before, ["il gatto"])
    assert (after.src_lang, after.tgt_lang) == ("it_IT", "en_XX")
    expect_same(before, after, ids, ["il gatto"])


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text(texts: list[str]) -> None:
    with pytest.raises(DataError, match="there is no text to keep a vocabulary for"):
        shrink_tokenizer(mbart50(), texts)


def test_a_tokenizer_without_a_fast_form() -> None:
    from transformers import ByT5Tokenizer

    tokenizer: Any = ByT5Tokenizer()
    with pytest.raises(CheckpointError, match=r"ByT5Tokenizer has no tokenizer\.json form"):
        shrink_tokenizer(tokenizer, ["a"])


def test_bytes_stay() -> None:
    after, _ = shrink_tokenizer(TOKENIZERS["unigram with bytes"], ["the cat"])
    assert set(BYTES) <= after.get_vocab().keys()
