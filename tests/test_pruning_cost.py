"""Costs against counting by hand."""

from __future__ import annotations

import pytest
from tiny_models import tiny_model
from translation_models import tiny_translator

from compress.pruning.cost import multiplications, parameters


def test_parameters_of_a_head_and_a_neuron() -> None:
    """Width 16, heads of size 4: 4 rows of query, key and value with their biases, 4 columns; a neuron: one of each."""
    assert parameters(tiny_model("bert"))[0] == {"heads": 3 * 4 * 17 + 4 * 16, "neurons": 17 + 16}


def test_parameters_without_biases_and_with_a_gate() -> None:
    """T5 of width 16 with heads of 8."""
    found = parameters(tiny_translator("t5-gated"))
    assert found[0] == {"heads": 4 * 8 * 16, "neurons": 3 * 16}
    assert found[-1] == {"heads": 4 * 8 * 16, "cross_heads": 4 * 8 * 16, "neurons": 3 * 16}


def test_multiplications_of_a_text() -> None:
    """10 tokens: four products of 4 x 16 and twice 10 x 4 a head and token; twice 16 a neuron."""
    found = multiplications(tiny_model("bert"), 10)
    assert found[0] == {"heads": 10 * (4 * 64 + 2 * 40), "neurons": 10 * 32}


def test_the_last_layer_of_a_classifier_works_for_one_token() -> None:
    found = multiplications(tiny_model("bert"), 10)[-1]
    assert found["heads"] == pytest.approx(10 * 2 * 64 + 2 * 64 + 2 * 40)
    assert found["neurons"] == pytest.approx(32)


def test_every_layer_of_a_translation_model_works_for_all_tokens() -> None:
    found = multiplications(tiny_translator("marian"), 10)
    assert found[0]["neurons"] == found[-1]["neurons"] == 10 * 32
    assert found[-1]["cross_heads"] == 10 * (4 * 8 * 16 + 2 * 10 * 8)  # two heads of size 8
