"""Rules of decoding, as a stranger may have written them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import BundleError, RecipeError
from export.decoding import Decoding, read_decoding

pytestmark = pytest.mark.runtime

WHOLE = {"start": 0, "end": 1, "pad": 0, "max_length": 20}


def test_there_and_back() -> None:
    rules = Decoding(3, 1, 0, 20, forced_start=7, forced_end=1, suppressed=(0, 5), beams=4, length_penalty=0.6)
    assert read_decoding({"decoding": json.loads(json.dumps(rules.to_json()))}, 10) == rules


def test_what_is_left_out_has_a_default() -> None:
    assert read_decoding({"decoding": WHOLE}, 2) == Decoding(0, 1, 0, 20)


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert read_decoding({"decoding": {**WHOLE, "temperature": 3}}, 2) == Decoding(0, 1, 0, 20)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"start": 10}, "details.decoding.start: expected an id below 10"),
        ({"start": None}, "details.decoding.start:"),
        ({"end": -1}, "details.decoding.end:"),
        ({"pad": True}, "details.decoding.pad:"),
        ({"pad": 1.0}, "details.decoding.pad:"),
        ({"forced_start": "it"}, "details.decoding.forced_start:"),
        ({"forced_end": 99}, "details.decoding.forced_end:"),
        ({"suppressed": 3}, "details.decoding.suppressed: expected a list of ids below 10"),
        ({"suppressed": [3, 11]}, "details.decoding.suppressed:"),
        ({"max_length": 0}, "details.decoding.max_length:"),
        ({"max_length": 1e9}, "details.decoding.max_length:"),
        ({"beams": 65}, "details.decoding.beams: expected a whole number from 1 to 64, found 65"),
        ({"beams": True}, "details.decoding.beams:"),
        ({"length_penalty": "high"}, "details.decoding.length_penalty: expected a number from -10 to 10"),
        ({"length_penalty": float("nan")}, "details.decoding.length_penalty:"),
        ({"no_repeat_ngram_size": -1}, "details.decoding.no_repeat_ngram_size:"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_decoding({"decoding": {**WHOLE, **change}}, 10)
    [found] = caught.value.problems
    assert found.startswith(problem)


def test_all_problems_at_once() -> None:
    with pytest.raises(BundleError) as caught:
        read_decoding({"decoding": {"start": -1, "beams": 0}}, 10)
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize("details", [{}, {"decoding": None}, {"decoding": [1]}])
def test_nothing_about_decoding(details: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="does not say how to decode"):
        read_decoding(details, 10)


@given(
    st.dictionaries(
        st.sampled_from([*Decoding.__dataclass_fields__]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()),
    )
)
def test_anything_else_is_only_a_bundle_error(value: dict[str, Any]) -> None:
    try:
        read_decoding({"decoding": {**WHOLE, **value}}, 10)
    except BundleError as error:
        assert error.problems


def test_options_of_a_call() -> None:
    rules = Decoding(0, 1, 0, 20)
    assert rules.changed({"beams": 4, "max_length": None}) == Decoding(0, 1, 0, 20, beams=4)
    with pytest.raises(RecipeError, match="writes at most 20 tokens, asked for 21"):
        rules.changed({"max_length": 21})
    with pytest.raises(RecipeError) as caught:
        rules.changed({"beams": 0, "length_penalty": None, "no_repeat_ngram_size": "two"})
    assert len(caught.value.problems) == 2
