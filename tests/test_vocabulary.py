"""Vocabularies from data: the same each time, every normalised text comes back, and the folder loads as any other."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import MarianConfig, PreTrainedTokenizerBase

from distill.checkpoint import load_tokenizer
from distill.recipe import VocabularyRecipe
from distill.vocabulary import SPECIAL, tokenizer_sum, train_vocabulary

Kind = Literal["unigram", "bpe"]
KINDS: list[Kind] = ["unigram", "bpe"]
WORDS = ["river", "stone", "cloud", "città", "perché", "garden", "window", "orange", "winter", "bridge", "ponte"]


def corpus(count: int = 300) -> list[str]:
    choose = random.Random(3)
    return [" ".join(choose.choices(WORDS, k=choose.randint(2, 9))) + choose.choice(".!?") for _ in range(count)]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return train_vocabulary(corpus(), VocabularyRecipe(type=request.param, size=330))


def test_what_stands_where(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 258]) == [*SPECIAL, "<0x00>", "<0xFF>"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert len(tokenizer) <= 330
    assert tokenizer("river").input_ids[-1] == 1, "every sentence ends with </s>"
    assert set(tokenizer(["a", "river"], padding=True)) == {"input_ids", "attention_mask"}
    assert not [piece for piece in tokenizer.get_vocab() if piece.strip("▁.!?") and piece[-1] in ".!?"], (
        "marks stand alone"
    )
    assert len(tokenizer("perché river").input_ids) < len("<s>perché river"), "pieces, not bytes"


UNSEEN: tuple[Any, ...] = ("Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn")


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"]), max_size=30)
)
@example("perché  no? ½ ﬁne")
@example("bytes by name: <0x41>")
@example("日本語 🙂 שלום")
def test_every_normalised_text_comes_back(tokenizer: Any, text: str) -> None:
    whole = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    if any(sign in text + whole for sign in ("▁", *SPECIAL)):
        return  # the sign for a space, and the names of special pieces
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == whole
    assert tokenizer.unk_token_id not in ids


MAKE = """
import sys
sys.path[:0] = sys.argv[1:]
from test_vocabulary import corpus
from distill.recipe import VocabularyRecipe
from distill.vocabulary import tokenizer_sum, train_vocabulary
print(tokenizer_sum(train_vocabulary(corpus()[::-1], VocabularyRecipe(size=330))))
"""


def test_another_process_and_another_order_make_the_same() -> None:
    here = tokenizer_sum(train_vocabulary(corpus(), VocabularyRecipe(size=330)))
    roots = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    done = subprocess.run([sys.executable, "-c", MAKE, *roots], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_a_folder_of_a_marian_model_gives_it_back(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    MarianConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer(["river", "stone and river"], padding=True, truncation=True, max_length=4)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert tokenizer_sum(again) == tokenizer_sum(tokenizer)
    assert (again.pad_token_id, again.eos_token_id) == (0, 1)
    texts: Any = ["river ponte", "x"]
    assert dict(again(texts, padding=True)) == dict(tokenizer(texts, padding=True))


def test_another_tokenizer_has_another_sum(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer_sum(train_vocabulary(corpus(), VocabularyRecipe(size=320))) != tokenizer_sum(tokenizer)
