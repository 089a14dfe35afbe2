"""Whatever is given to a translator, it answers or says what is wrong."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.runtime import Translation, Translator, load_as

pytestmark = pytest.mark.runtime

DATA = Path(__file__).resolve().parents[1] / "data"
GOLDEN, GOLDEN_INT8 = DATA / "golden-translation", DATA / "golden-translation-int8"
MODEL = load_as(Translator, GOLDEN, threads=1)
TEXTS = ["rosso legge", "il gatto dorme oggi", "la casa", "", "un libro piccolo", "cane", "casa " * 60]
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize("text", ["", " ", "\t\r\n  ", "\u00a0\u3000"])
def test_row_31_nothing_but_white_space_becomes_an_empty_text(text: str) -> None:
    empty = Translation("", 0.0, False, False)
    assert MODEL([text, "gatto"], scores=True) == [empty, *MODEL(["gatto"], scores=True)]


@pytest.mark.parametrize("text", ["\x00\x01\x1f", "\u200b\u200e"])
def test_row_31_control_characters_have_a_defined_answer(text: str) -> None:
    assert MODEL([text]) == MODEL([text, "il gatto"])[:1]


def test_row_32_no_texts() -> None:
    assert MODEL([]) == [] == MODEL([], beams=3, n_best=2)


@pytest.mark.parametrize("text", ["gatto " * 200_000, "x" * 1_000_000, " " * 999_999 + "x", "\u4f60" * 1_000_000])
def test_row_33_a_million_characters_take_no_time_and_are_marked(text: str) -> None:
    begin = time.process_time()
    (answer,) = MODEL([text])
    assert time.process_time() - begin < 5  # what takes long is counted in minutes; machines are busy
    assert answer.truncated


@pytest.mark.parametrize(
    "text",
    [
        "\ud800",
        "gatto \udfff",
        "a\0b",
        "e" + "\u0301" * 10_000,
        "\u05e9\u05dc\u05d5\u05dd",
        FAMILY * 50,
        "\ufffe\U0010ffff",
    ],
)
def test_row_34_strange_texts_are_answered(text: str) -> None:
    (answer,) = MODEL([text])
    assert isinstance(answer.text, str)
    assert answer.truncated == (len(text) > 1000)


def test_row_34_half_characters_do_not_disturb_their_neighbours() -> None:
    assert MODEL(["il gatto", "\ud800"])[0] == MODEL(["il gatto", "b"])[0]
    assert MODEL(["\ud83d\ude00"]) == MODEL(["\U0001f600"])  # two halves are one character


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=60), max_size=3), st.sampled_from([1, 2]))
def test_row_34_any_text_is_answered(texts: list[str], beams: int) -> None:
    found = MODEL(texts, beams=beams)
    assert len(found) == len(texts)
    assert all(each.text == "" for each, text in zip(found, texts, strict=True) if not text.strip())


@pytest.mark.parametrize("text", [None, 3, b"gatto", float("nan"), ("gatto", "cane"), ["gatto"]])
def test_row_35_what_is_no_text_is_named_with_its_index(text: Any) -> None:
    with pytest.raises(TypeError, match=f"text 1: expected str, found {type(text).__name__}"):
        MODEL(["gatto", text])


@pytest.mark.parametrize("texts", ["gatto", b"gatto", {"gatto": 1}])
def test_row_35_one_text_is_not_a_list(texts: Any) -> None:
    with pytest.raises(TypeError, match="expected a list of texts"):
        MODEL(texts)


@given(st.lists(st.sampled_from(TEXTS), max_size=9), st.sampled_from([1, 30, 100, 10_000]), st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_row_36_batches_change_neither_answers_nor_their_order(texts: list[str], budget: int, beams: int) -> None:
    alone = {text: MODEL([text], beams=beams)[0].text for text in set(texts)}
    assert [each.text for each in MODEL(texts, beams=beams, batch_tokens=budget)] == [alone[text] for text in texts]


def test_row_36_in_dynamic_int8_they_may_and_the_same_batch_answers_the_same() -> None:
    model = load_as(Translator, GOLDEN_INT8, threads=1)
    together = model(TEXTS)
    assert together == model(TEXTS)
    flips = np.mean([a.text != model([text])[0].text for a, text in zip(together, TEXTS, strict=True)])
    assert 0 <= flips < 1  # what it is on real sentences stands in each bundle


def test_row_37_eight_threads_on_one_translator() -> None:
    expected = [each.text for each in MODEL(TEXTS)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: [each.text for each in MODEL(TEXTS)], range(40)))
    assert found == [expected] * 40


def test_row_37_two_translators_do_not_disturb_each_other() -> None:
    other, expected = load_as(Translator, GOLDEN_INT8, threads=2), [each.text for each in MODEL(TEXTS)]
    answers = [each.text for each in other(TEXTS)]
    assert [each.text for each in MODEL(TEXTS)] == expected
    assert [each.text for each in other(TEXTS)] == answers
