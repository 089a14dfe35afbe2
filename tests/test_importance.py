"""Importance against what switching off really does, for encoders and encoder-decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import KINDS, answer, tiny_batch, tiny_model
from torch import nn
from torch.nn import functional
from translation_models import MODELS, VOCABULARY, tiny_translator

from compress.pruning.importance import Scores, channel_importance, importance
from distill.layers import layers
from distill.stream import stream

GOLD = torch.tensor([0, 1, 2])


def row_loss(model: nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    return functional.cross_entropy(logits, batch["labels"], reduction="none")


def word_losses(model: nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    return functional.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none").mean(1)


def batches(rows: int = 3) -> list[dict[str, torch.Tensor]]:
    whole = {**tiny_batch(), "labels": GOLD}
    return [{key: value[start : start + rows] for key, value in whole.items()} for start in range(0, 3, rows)]


def pairs(rows: int = 4) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(1)
    ids, targets = (torch.from_numpy(random.integers(3, VOCABULARY, (rows, 6))) for _ in range(2))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": targets, "labels": targets}


def scores(model: nn.Module) -> list[Scores]:
    return importance(model, batches(), row_loss)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("measure", ["taylor", "fisher"])
def test_heads_and_neurons_that_nobody_reads_have_no_importance(kind: str, measure: Any) -> None:
    model = tiny_model(kind)
    with torch.no_grad():
        layer = layers(model)[1]
        layer.heads.out.weight[:, 4:8] = 0  # head 1
        layer.neurons.out.weight[:, 7] = 0
    found = importance(model, batches(), row_loss, measure)[1]
    assert found["heads"][1] == 0 and found["neurons"][7] == 0
    assert (found["heads"][[0, 2, 3]] > 0).all()
    assert found["heads"].shape == (4,) and found["neurons"].shape == (24,)


@pytest.mark.parametrize("kind", MODELS)
def test_a_decoder_has_heads_that_look_at_the_source(kind: str) -> None:
    model = tiny_translator(kind)
    last = layers(model)[-1]
    assert last.cross_heads is not None
    with torch.no_grad():
        last.cross_heads.out.weight[:, : last.cross_heads.width] = 0  # head 0
    found = importance(model, [pairs()], word_losses, "fisher")
    assert found[-1]["cross_heads"][0] == 0 and (found[-1]["cross_heads"][1:] > 0).all()
    assert [sorted(each) for each in found] == [["heads", "neurons"]] * 3 + [["cross_heads", "heads", "neurons"]] * 2


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_importance_is_the_slope_of_the_loss(kind: str) -> None:
    """|dL/dgate| of one row, against the loss measured with a head's and a neuron's output a little smaller."""
    model, step = tiny_model(kind).double(), 1e-6
    row = {key: value[:1] for key, value in batches()[0].items()}
    slopes, squares = importance(model, [row], row_loss)[2], importance(model, [row], row_loss, "fisher")[2]
    before = row_loss(model, row)
    layer = layers(model)[2]
    for linear, name, columns in (
        (layer.heads.out, "heads", slice(8, 12)),
        (layer.neurons.out, "neurons", slice(5, 6)),
    ):
        with torch.no_grad():
            linear.weight[:, columns] *= 1 - step
            slope = ((before - row_loss(model, row)) / step).abs().item()
            linear.weight[:, columns] /= 1 - step
        unit = columns.start // (4 if name == "heads" else 1)
        assert slopes[name][unit].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)
        assert squares[name][unit].item() == pytest.approx(slope**2, rel=2e-3, abs=1e-6)


def test_the_size_of_weights_by_hand() -> None:
    model = tiny_model("bert")
    layer = layers(model)[0]
    with torch.no_grad():
        for linear in (*layer.heads.into, layer.heads.out, *layer.neurons.into, layer.neurons.out):
            linear.weight.zero_()
        layer.heads.into[0].weight[5, 0] = 3.0  # head 1: its query
        layer.heads.out.weight[2, 6] = 4.0  # and its output
        layer.neurons.out.weight[0, 9] = -2.0
    found = importance(model, [], row_loss, "magnitude")[0]
    assert found["heads"].tolist() == [0, 5, 0, 0]
    assert found["neurons"][9] == 2 and found["neurons"].sum() == 2


def test_importance_is_a_mean_over_rows_however_they_are_batched() -> None:
    model = tiny_model("bert")
    one, three = importance(model, batches(1), row_loss), importance(model, batches(3), row_loss)
    for a, b in zip(one, three, strict=True):
        for kind in ("heads", "neurons"):
            assert torch.allclose(a[kind], b[kind], rtol=1e-4, atol=1e-6)


def test_measuring_leaves_no_trace() -> None:
    model = tiny_model("bert")
    before = answer(model, tiny_batch())
    scores(model)
    assert torch.equal(answer(model, tiny_batch()), before)
    assert all(value.grad is None for value in model.parameters())
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())


def test_without_rows_everything_is_equally_important() -> None:
    assert all(not layer["heads"].any() for layer in importance(tiny_model("bert"), [], row_loss))


def read_by_nobody(model: nn.Module, channel: int) -> None:
    """Weights with which no map reads a channel; output matrices are untied from the tables."""
    with torch.no_grad():
        for reader in stream(model).readers:
            reader.weight = nn.Parameter(reader.weight.detach().clone())
            reader.weight[:, channel] = 0


@pytest.mark.parametrize("kind", [*KINDS, *MODELS])
@pytest.mark.parametrize("measure", ["taylor", "fisher"])
def test_channels_that_nobody_reads_have_no_importance(kind: str, measure: Any) -> None:
    model = tiny_model(kind) if kind in KINDS else tiny_translator(kind)
    read_by_nobody(model, 5)
    found = (
        channel_importance(model, batches(), row_loss, measure)
        if kind in KINDS
        else channel_importance(model, [pairs()], word_losses, measure)
    )
    assert found.shape == (16,) and found[5] == 0
    assert (found[[each for each in range(16) if each != 5]] > 0).all()


@pytest.mark.parametrize("kind", ["bert", "marian"])
def test_importance_of_a_channel_is_the_slope_of_the_loss(kind: str) -> None:
    """|dL/dgate| of one row, against the loss measured with every map reading a little less of one channel."""
    model, step = (tiny_model(kind) if kind in KINDS else tiny_translator(kind)).double(), 1e-6
    row = {key: value[:1] for key, value in (batches()[0] if kind in KINDS else pairs()).items()}
    loss = row_loss if kind in KINDS else word_losses
    found = channel_importance(model, [row], loss)
    before = loss(model, row)
    with torch.no_grad():
        for reader in stream(model).readers:
            reader.weight = nn.Parameter(reader.weight.detach().clone())
            reader.weight[:, 3] *= 1 - step
    assert found[3].item() == pytest.approx(((before - loss(model, row)) / step).abs().item(), rel=1e-3, abs=1e-6)


def test_the_size_of_a_channel_by_hand() -> None:
    model: Any = tiny_translator("marian")
    found = stream(model)
    with torch.no_grad():
        for module in (*found.tables, *found.readers, *found.writers):
            module.weight.zero_()  # type: ignore[operator, union-attr]
        model.lm_head.weight[7, 2] = 2.0  # the shared table: once
        layers(model)[0].heads.into[0].weight[0, 2] = 4.0
        layers(model)[4].neurons.out.weight[2, 1] = 4.0
        layers(model)[4].neurons.out.bias[3] = 1.0  # a bias does not count
    assert channel_importance(model, [], word_losses, "magnitude").tolist() == [0, 0, 6, *[0] * 13]


def test_importance_of_channels_is_a_mean_over_rows_and_leaves_no_trace() -> None:
    model = tiny_model("bert")
    before = answer(model, tiny_batch())
    one, three = (channel_importance(model, batches(rows), row_loss, "fisher") for rows in (1, 3))
    assert torch.allclose(one, three, rtol=1e-4, atol=1e-6)
    assert torch.equal(answer(model, tiny_batch()), before)
    assert all(not module._forward_pre_hooks for module in model.modules())
