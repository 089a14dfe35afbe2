"""Smaller layers answer as the full model does with those heads and neurons switched off, and come back from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import toy_tokenizer
from tiny_models import KINDS, LABELS, answer, tiny_batch, tiny_model
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from distill.checkpoint import load_model, save
from distill.errors import CheckpointError
from distill.layer_sizes import SIZES_KEY, apply_sizes, record_sizes
from distill.layers import LayerSize, layers, model_config, stack
from distill.task import Task

KEPT = [((0, 2), range(0, 24, 3)), ((3,), range(5)), ((1, 0, 3), range(23, 11, -1)), ((0, 1, 2, 3), (7,))]
"""Heads and neurons that each of the four layers keeps; the third in another order."""
TASK = Task("classification", LABELS, max_length=32)


def switched_off(model: nn.Module, kept: Sequence[tuple[Sequence[int], Sequence[int]]]) -> nn.Module:
    """The full model with the weights that read from other heads and neurons set to 0."""
    with torch.no_grad():
        for layer, (heads, neurons) in zip(layers(model), kept, strict=True):
            read_from_heads = layer.linear("attention_output").weight
            for head in set(range(layer.size.heads)) - set(heads):
                read_from_heads[:, head * layer.heads.width : (head + 1) * layer.heads.width] = 0
            read_from_neurons = layer.linear("down").weight
            for neuron in set(range(layer.size.neurons)) - set(neurons):
                read_from_neurons[:, neuron] = 0
    return model


def shrunk(model: nn.Module, kept: Sequence[tuple[Sequence[int], Sequence[int]]]) -> nn.Module:
    for layer, (heads, neurons) in zip(layers(model), kept, strict=True):
        layer.keep({"heads": list(heads), "neurons": list(neurons)})
    record_sizes(model)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_smaller_layers_answer_like_switched_off_ones(kind: str) -> None:
    batch = tiny_batch()
    full = answer(tiny_model(kind).double(), batch)
    wanted = answer(switched_off(tiny_model(kind).double(), KEPT), batch)
    found = answer(shrunk(tiny_model(kind).double(), KEPT), batch)
    assert (full - wanted).abs().max() > 0.5  # what is removed matters
    assert (found - wanted).abs().max() < 1e-12  # fp64, so that only a wrong row could differ


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_in_the_config_and_in_the_matrices(kind: str) -> None:
    before = sum(value.numel() for value in tiny_model(kind).parameters())
    model = shrunk(tiny_model(kind), KEPT)
    sizes = [LayerSize(2, 8), LayerSize(1, 5), LayerSize(3, 12), LayerSize(4, 1)]
    assert [layer.size for layer in layers(model)] == sizes
    assert getattr(model_config(model), SIZES_KEY) == [{"heads": s.heads, "neurons": s.neurons} for s in sizes]
    lost_heads, lost_neurons = 16 - sum(s.heads for s in sizes), 96 - sum(s.neurons for s in sizes)
    # a head: 4 rows of query, key and value with their biases, and 4 columns; a neuron: a row with bias, a column
    lost = lost_heads * (3 * 4 * (16 + 1) + 4 * 16) + lost_neurons * (16 + 1 + 16)
    assert sum(value.numel() for value in model.parameters()) == before - lost


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_the_answers_are_identical(kind: str, tmp_path: Path) -> None:
    model, batch = shrunk(tiny_model(kind), KEPT), tiny_batch()
    save(model, toy_tokenizer(), TASK, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(answer(again, batch), answer(model, batch))
    assert [layer.size for layer in layers(again)] == [layer.size for layer in layers(model)]


def test_a_layer_can_be_made_smaller_twice() -> None:
    batch = tiny_batch()
    once = shrunk(tiny_model("bert"), [((1, 3), (4, 9))] * 4)
    twice = shrunk(shrunk(tiny_model("bert"), [((1, 2, 3), (0, 4, 9))] * 4), [((0, 2), (1, 2))] * 4)
    assert torch.equal(answer(once, batch), answer(twice, batch))


def test_smaller_layers_still_learn() -> None:
    model = shrunk(tiny_model("bert"), KEPT)
    model(**tiny_batch()).logits.sum().backward()
    assert all(value.grad is not None for name, value in model.named_parameters() if "encoder.layer" in name)


def test_a_config_without_sizes_changes_nothing() -> None:
    model = tiny_model("bert")
    before = answer(model, tiny_batch())
    apply_sizes(model)
    assert torch.equal(answer(model, tiny_batch()), before)


def test_sizes_for_another_number_of_layers() -> None:
    model = tiny_model("bert")
    setattr(model_config(model), SIZES_KEY, [{"heads": 1, "neurons": 1}])
    with pytest.raises(CheckpointError, match="names 1 layer sizes for 4 layers"):
        apply_sizes(model)


@pytest.mark.parametrize(
    "sizes",
    [
        7,
        [1, 2, 3, 4],
        [{}] * 4,
        [{"heads": 5, "neurons": 24}] * 4,
        [{"heads": 4, "neurons": 25}] * 4,
        [{"heads": 0, "neurons": 24}] * 4,
        [{"heads": 4, "neurons": -1}] * 4,
        [{"heads": "4", "neurons": 24}] * 4,
        [{"heads": 4.0, "neurons": 24}] * 4,
    ],
)
def test_sizes_that_cannot_be(sizes: object) -> None:
    model = tiny_model("bert")
    setattr(model_config(model), SIZES_KEY, sizes)
    with pytest.raises(CheckpointError, match="layer size"):
        apply_sizes(model)


def test_an_architecture_without_a_description() -> None:
    model = GPT2ForSequenceClassification(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=10, pad_token_id=0))
    with pytest.raises(CheckpointError, match=r"the layers of a gpt2 model; supported: bart, bert, "):
        layers(model)


def test_no_stack_of_that_many_layers() -> None:
    model = tiny_model("bert")
    model_config(model).num_hidden_layers = 9
    with pytest.raises(CheckpointError, match="found no stack of 9 layers in BertForSequenceClassification"):
        stack(model)
