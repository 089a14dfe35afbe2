"""Which pieces have to stay, by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vocabularies import BYTES, FILLER, SCORES, bpe, mbart50, unigram, wordpiece

from distill.pieces import inside, needed, smaller, vocabulary_of


def form(tokenizer: Any) -> Any:
    return json.loads(tokenizer.backend_tokenizer.to_str())


ABC = bpe([("b", "c"), ("a", "bc"), ("a", "b"), ("ab", "c"), ("abc", "d"), ("▁", "abcd"), ("c", "d")], "▁ a b c d")
SUFFIXED = bpe([("a", "b"), ("ab", "c</w>"), ("b", "c</w>")], "▁ a b c c</w> b</w>", end_of_word_suffix="</w>")
PREFIXED = bpe([("##a", "##b"), ("##ab", "##c"), ("▁", "##ab")], "▁ ##a ##b ##c", continuing_subword_prefix="##")

NEEDED: list[tuple[str, Any, list[str], set[str]]] = [
    # what, the tokenizer, the pieces that are used, what is kept of the rest
    ("unigram: letters and the worst piece", unigram({"▁": -1, "a": -2, "b": -2, "ab": -1, "abab": -1}), ["ab"],
     {"ab", "a", "b", "zzz"}),
    ("unigram: letters that have no piece", unigram({"▁a": -1, "b": -2}), ["▁a"], {"▁a", "zzz"}),
    ("bpe: the way to a piece, not another way", ABC, ["▁abcd"], {"▁abcd", "abcd", "abc", "bc", *"▁abcd"}),
    ("bpe: a piece that is a letter", ABC, ["d"], {"d"}),
    ("bpe: ends of words", SUFFIXED, ["abc</w>"], {"abc</w>", "ab", "a", "b", "c", "b</w>", "c</w>"}),
    ("bpe: insides of words", PREFIXED, ["##abc"], {"##abc", "##ab", "##a", "##b", "##c"}),
    ("bpe: from the beginning of a word", PREFIXED, ["▁ab"], {"▁ab", "##ab", "▁", "##a", "##b"}),
    ("wordpiece: both forms of a letter", wordpiece("a ##a b ##b ab ##ab abab"), ["##ab"],
     {"##ab", "a", "##a", "b", "##b"}),
]  # fmt: skip


@pytest.mark.parametrize(("tokenizer", "used", "kept"), [row[1:] for row in NEEDED], ids=[row[0] for row in NEEDED])
def test_what_is_kept(tokenizer: Any, used: list[str], kept: set[str]) -> None:
    found = needed(form(tokenizer), used)
    assert found - {"<unk>", "[UNK]", *FILLER} == kept
    assert found & {"<unk>", "[UNK]"}


def test_all_bytes_are_kept() -> None:
    for tokenizer in (unigram({"a": -1.0, "b": -1.0}, byte_fallback=True), bpe([], "a b", byte_fallback=True)):
        assert needed(form(tokenizer), ["a", "<0xE2>"]) - {"<unk>", "zzz"} == {"a", *BYTES}


def test_all_added_tokens_are_kept() -> None:
    found = needed(form(mbart50()), ["▁the"])
    assert {"en_XX", "sl_SI", "<mask>", "<pad>", "<unk>", "▁the", "t", "h", "e", "▁", "é"} <= found, "é is the worst"
    assert not found & {"▁cat", "a", "▁il"}
    assert len(found) == 4 + 53 + len(["▁the", "▁", "t", "h", "e", "é"])


def test_pieces_inside_words() -> None:
    assert inside(form(wordpiece("a ##a ab ##b abc c ##cd xab")), ["abcd"]) == {
        "a",
        "##a",
        "ab",
        "##b",
        "abc",
        "c",
        "##cd",
    }
    assert inside(form(SUFFIXED), ["abc"]) == {"a", "b", "c", "ab", "bc</w>", "abc</w>", "c</w>", "b</w>"}
    assert inside(form(ABC), []) == set()


def test_a_smaller_bpe() -> None:
    before = form(ABC)
    known = vocabulary_of(before)
    ids = sorted(known[piece] for piece in ("<unk>", *"abcd", "bc", "abc"))
    model = smaller(before, ids)["model"]
    assert model["vocab"] == {"<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "bc": 5, "abc": 6}
    assert model["merges"] == [("b", "c"), ("a", "bc")]


def test_a_smaller_form_has_new_numbers_everywhere() -> None:
    before = form(mbart50())
    known = vocabulary_of(before)
    ids = sorted({*range(4), known["▁the"], *(known[token["content"]] for token in before["added_tokens"])})
    after = smaller(before, ids)
    numbers = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "▁the": 4, "ar_AR": 5, "en_XX": 8, "<mask>": 57}
    assert {piece: vocabulary_of(after)[piece] for piece in numbers} == numbers
    assert after["model"]["vocab"][4] == ["▁the", SCORES["▁the"]] and after["model"]["unk_id"] == 3
    assert after["post_processor"]["special_tokens"]["en_XX"]["ids"] == [8]
    assert before["post_processor"]["special_tokens"]["en_XX"]["ids"] != [8], "what was given stays"
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 30], "trim_offsets": True}
    processors = {"type": "Sequence", "processors": [roberta]}
    plain = {**before, "added_tokens": [], "post_processor": processors}
    assert smaller(plain, [2, 3, 30])["post_processor"]["processors"] == [
        {**roberta, "sep": ["</s>", 0], "cls": ["<s>", 2]}
    ]
