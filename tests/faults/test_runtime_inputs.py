"""Whatever is given to a predictor, it answers or says what is wrong."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_bytes import GOLDEN, copy_golden, reseal

from distill.errors import RecipeError
from distill.task import Task
from export.runtime import Predictor, load

pytestmark = pytest.mark.runtime

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.fixture(scope="module")
def model() -> Predictor:
    return load(GOLDEN, threads=1)


# --- texts without content, and strange ones -------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\t\r\n  ", "\x00\x01\x1f", "\u200b\u200e", "\u00a0\u3000"])
def test_texts_without_content_are_special_tokens(model: Predictor, text: str) -> None:
    assert model.encode([text])["input_ids"].tolist() == [[2, 3]]
    assert model([text]) == model([""])
    assert not model([text])[0].truncated


@pytest.mark.parametrize(
    "text",
    [
        "\ud800",
        "film \udfff film",
        "a\0b",
        "e" + "\u0301" * 10_000,
        "\u05e9\u05dc\u05d5\u05dd \u0639\u0631\u0628\u064a",
        FAMILY * 500,
        "\ufffe\uffff\U0010ffff",
    ],
)
def test_strange_texts_are_answered(model: Predictor, text: str) -> None:
    answer = model([text])[0]
    assert answer.label in model.task.labels
    assert 1 / 3 <= answer.score <= 1


def test_half_characters_do_not_disturb_their_neighbours(model: Predictor) -> None:
    assert model(["a gorgeous film", "\ud800"])[0] == model(["a gorgeous film", "b"])[0]
    assert model(["\ud83d\ude00"]) == model(["\U0001f600"])  # two halves are one character


def test_a_string_of_numpy_is_a_string(model: Predictor) -> None:
    assert model(np.array(["a gorgeous film"])) == model(["a gorgeous film"])  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_any_text_is_answered(text: str) -> None:
    predictor = ANY
    assert np.isfinite(predictor.logits([text])).all()
    assert 2 <= predictor.encode([text])["input_ids"].shape[1] <= 32


ANY = load(GOLDEN, threads=1)


# --- long texts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["word " * 200_000, "x" * 1_000_000, " " * 1_000_000, "\u4f60" * 1_000_000])
def test_a_million_characters_take_no_time_and_are_marked(model: Predictor, text: str) -> None:
    begin = time.perf_counter()
    answer = model([text])[0]
    assert time.perf_counter() - begin < 1
    assert answer.truncated


@pytest.mark.parametrize(("words", "truncated"), [(30, False), (31, True), (1, False), (0, False)])
def test_truncated_means_that_tokens_were_lost(model: Predictor, words: int, truncated: bool) -> None:
    text = " ".join(["a"] * words)
    assert model.encode([text])["input_ids"].shape == (1, min(words, 30) + 2)
    assert model([text])[0].truncated is truncated


# --- what is no text --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [b"bytes", None, 1, float("nan"), ["a"], ("a", "b")])
def test_what_is_no_text_is_named_with_its_index(model: Predictor, wrong: object) -> None:
    with pytest.raises(TypeError, match=f"text 1: expected str, found {type(wrong).__name__}"):
        model(["a", wrong])  # type: ignore[list-item]


@pytest.mark.parametrize("wrong", ["one text", b"one text", {"text": "one text"}])
def test_one_text_without_a_list_is_refused(model: Predictor, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"write model\(\[text\]\)"):
        model(wrong)


@pytest.mark.parametrize("wrong", ["a", ["a", "b"], ("a",), ("a", None), ("a", "b", "c"), None])
def test_what_is_no_pair_is_named_with_its_index(tmp_path_factory: pytest.TempPathFactory, wrong: Any) -> None:
    folder = copy_golden(tmp_path_factory.mktemp("pairs"))
    reseal(folder, task=Task("classification", ("a", "b", "c"), pair="other", max_length=32))
    with pytest.raises(TypeError, match="text 1: this model wants pairs"):
        load(folder, threads=1)([("a", "b"), wrong])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_nothing_are_refused(model: Predictor, batch_size: int) -> None:
    with pytest.raises(RecipeError, match="batch_size: expected at least 1"):
        model(["a"], batch_size=batch_size)


# --- ids that a caller made -------------------------------------------------------------------------


def test_encoding_nothing_is_refused(model: Predictor) -> None:
    with pytest.raises(RecipeError, match="at least one text"):
        model.encode([])


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16])
def test_ids_are_cast_and_inputs_completed(model: Predictor, dtype: type) -> None:
    inputs = model.encode(["a gorgeous film"])
    ids = {"input_ids": (inputs["input_ids"] % 100).astype(dtype)}
    whole = {**inputs, "input_ids": inputs["input_ids"] % 100}
    np.testing.assert_array_equal(model.forward(ids), model.forward(whole))
    np.testing.assert_array_equal(model.forward({**ids, "pixels": np.zeros(3)}), model.forward(whole))


ONE = np.ones((1, 4), np.int64)


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        ({}, "input_ids: expected (texts, length), at least one of each"),
        ({"input_ids": np.ones(4, np.int64)}, "input_ids: expected (texts, length)"),
        ({"input_ids": np.ones((1, 0), np.int64)}, "input_ids: expected (texts, length)"),
        ({"input_ids": np.ones((0, 4), np.int64)}, "input_ids: expected (texts, length)"),
        ({"input_ids": -ONE}, "input_ids: expected 0 to 199, found -1 to -1"),
        ({"input_ids": ONE * 200}, "input_ids: expected 0 to 199, found 200 to 200"),
        ({"input_ids": ONE * 2**62}, "input_ids: expected 0 to 199"),
        ({"input_ids": ONE * 1.0}, "input_ids: expected integers"),
        ({"input_ids": ONE == 1}, "input_ids: expected integers"),
        ({"input_ids": np.ones((1, 33), np.int64)}, "33 tokens, the model has 32 positions"),
        ({"input_ids": ONE, "attention_mask": np.ones((1, 5), np.int64)}, "attention_mask: shape (1, 5) is not that"),
        ({"input_ids": ONE, "attention_mask": ONE * 2}, "attention_mask: expected 0 to 1"),
        ({"input_ids": ONE, "token_type_ids": ONE * 2}, "token_type_ids: expected 0 to 1"),
    ],
)
def test_ids_that_do_not_fit_are_refused(model: Predictor, inputs: Any, wanted: str) -> None:
    with pytest.raises(RecipeError) as caught:
        model.forward(inputs)
    assert wanted in str(caught.value)
