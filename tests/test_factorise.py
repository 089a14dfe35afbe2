"""Factors lose as little as can be on the inputs that maps get, and the graphs made of them answer like torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_encoder_graph import logits as graph_logits
from tiny_models import KINDS, answer, tiny_batch, tiny_model
from torch import nn
from translation_models import MODELS, TASK, opened, source_batch, tiny_translator

from compress.low_rank.factorise import Weighting, candidates, factorise
from compress.low_rank.factors import directions, factors
from compress.low_rank.observed import Observed, observe
from compress.quantization import int8
from compress.quantization.half import narrowed
from compress.quantization.operators import LEAST_OPSET, Fused
from compress.quantization.products import count_products
from compress.quantization.translation_int8 import quantize_translation
from compress.quantization.weight_only import weight_only
from distill.errors import CheckpointError, RecipeError
from distill.layers import model_config
from distill.low_rank import RANKS_KEY, low_rank_maps
from export.encoder.build import build_classifier
from export.encoder.weights import read_classifier
from export.graph import to_onnx
from export.graphs.plan import read_plan
from export.seq2seq.build import build
from export.seq2seq.export import to_onnx as translator_to_onnx
from export.seq2seq.weights import read_model


def rows(count: int = 12, length: int = 9) -> Iterator[dict[str, torch.Tensor]]:
    """Inputs of classifiers without padding, one at a time."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        ids = torch.randint(5, 50, (1, length), generator=generator)
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pairs(model: Any, count: int = 12) -> Iterator[dict[str, torch.Tensor]]:
    """Inputs of encoder-decoders without padding, one at a time."""
    for batch in rows(count):
        target = batch["input_ids"].flip(1)[:, :6]
        yield batch | {"decoder_input_ids": target, "labels": target}


def row_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """A loss of each row: how far its logits are from 0."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits
    if "labels" in batch:
        logits = logits * (batch["labels"] != -100)[..., None]
    return logits.square().flatten(1).sum(1)  # type: ignore[no-any-return]


def random_map(inputs: int, outputs: int, seed: int) -> tuple[nn.Linear, torch.Tensor]:
    """A map, and inputs `(200, in)` of which some directions are much larger than others."""
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs)
    states = torch.randn(200, inputs) @ torch.diag(torch.logspace(0, -2, inputs)) @ torch.randn(inputs, inputs)
    return linear, states


class Single(nn.Module):
    """A model that is one map."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.map = linear

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.map(input_ids)


def seen_of(linear: nn.Linear, states: torch.Tensor, loss: Any = None) -> Observed:
    there = torch.ones(1, len(states), dtype=torch.long)
    return observe(Single(linear), {"map": linear}, [{"input_ids": states[None], "attention_mask": there}], loss)["map"]


def lost(linear: nn.Linear, made: Any, states: torch.Tensor) -> float:
    """The squared error of a map's outputs on these inputs."""
    with torch.no_grad():
        return float((linear(states) - made(states)).double().square().sum())


shapes = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(0, 99))


@given(shape=shapes, cut=st.floats(0.1, 0.9))
def test_weighted_factors_lose_less_than_plain_ones(shape: tuple[int, int, int], cut: float) -> None:
    linear, states = random_map(*shape)
    rank = max(1, int(cut * min(shape[:2])))
    weighted, plain = directions(linear, seen_of(linear, states)), directions(linear)
    least, more = (lost(linear, factors(linear, each, rank), states) for each in (weighted, plain))
    assert least <= more * (1 + 1e-4) + 1e-5
    # what is lost is the energy of the directions that are gone (Eckart and Young 1936)
    assert least == pytest.approx(float(weighted.energies[rank:].sum()), rel=1e-2, abs=1e-3)


@given(shape=shapes)
def test_no_other_factors_of_the_rank_are_better(shape: tuple[int, int, int]) -> None:
    linear, states = random_map(*shape)
    best = factors(linear, directions(linear, seen_of(linear, states)), 1)
    least = lost(linear, best, states)
    for seed in range(5):
        torch.manual_seed(seed)
        other = factors(linear, directions(linear, seen_of(linear, states)), 1)
        with torch.no_grad():
            for value in other.first.weight, other.second.weight:
                value.add_(torch.randn_like(value), alpha=0.01)
        assert lost(linear, other, states) >= least * (1 - 1e-4) - 1e-5


def test_directions_by_hand() -> None:
    linear = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.diag(torch.tensor([2.0, 1.0])))
    assert directions(linear).energies.tolist() == [4.0, 1.0]
    # the second input is ten times as large: 1 * 10 is more than 2 * 1
    found = directions(linear, seen_of(linear, torch.tensor([[1.0, 0.0], [0.0, 10.0]])))
    torch.testing.assert_close(found.energies, torch.tensor([100.0, 4.0], dtype=torch.float64), rtol=1e-4, atol=0)
    made = factors(linear, found, 1)
    torch.testing.assert_close(made.matrix(), torch.diag(torch.tensor([0.0, 1.0])), atol=1e-6, rtol=0)


def test_padding_does_not_count() -> None:
    """Rows of different lengths in one batch are as they are one by one, in encoder and decoder."""
    model, alone, torn = tiny_translator("marian"), [], []
    ids = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(3))
    for row, (source, target) in enumerate(((7, 4), (5, 6))):
        own = {"input_ids": ids[row : row + 1, :source], "attention_mask": torch.ones(1, source, dtype=torch.long)}
        alone.append(own | {name: ids[row : row + 1, :target] for name in ("decoder_input_ids", "labels")})
        torn.append((torch.arange(7) < source, torch.arange(7) < target))
    masks, targets = (torch.stack(each) for each in zip(*torn, strict=True))
    together = {"input_ids": ids, "attention_mask": masks.long(), "decoder_input_ids": ids}
    together["labels"] = torch.where(targets, ids, -100)
    maps = candidates(model)
    wanted, found = (observe(model, maps, batches, row_loss) for batches in (alone, [together]))
    for path, each in wanted.items():
        assert found[path].positions == each.positions == (10 if "decoder" in path else 12)
        for one, other in ((found[path].moment, each.moment), (found[path].gradients, each.gradients)):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
            assert other.any()


def test_outputs_count_as_far_as_the_loss_depends_on_them() -> None:
    linear, states = nn.Linear(2, 2, bias=False), torch.eye(2)
    with torch.no_grad():
        linear.weight.copy_(torch.diag(torch.tensor([2.0, 1.0])))
    # loss 5 y_2 + y_1 / 10 at each of two positions: squared gradients 25 and 0.01, twice each
    seen = seen_of(linear, states, lambda model, batch: (model(**batch) * torch.tensor([0.1, 5.0])).sum((1, 2)))
    assert seen.positions == 2
    torch.testing.assert_close(seen.gradients, torch.tensor([0.02, 50.0]))
    found = directions(linear, seen)
    # the second: (1^2 * 50) / 2 positions, and 1 % of the mean gradient, 25.01 / 2, more
    assert found.energies.tolist() == pytest.approx([25 + 0.12505, (0.01 + 0.12505) * 4], rel=1e-4)
    torch.testing.assert_close(
        factors(linear, found, 1).matrix(), torch.diag(torch.tensor([0.0, 1.0])), atol=1e-6, rtol=0
    )


@given(shape=shapes, cut=st.floats(0.1, 0.9))
def test_weighted_by_gradients_the_weighted_error_is_least(shape: tuple[int, int, int], cut: float) -> None:
    linear, states = random_map(*shape)
    scale = torch.logspace(0, -2, shape[1])
    seen = seen_of(linear, states, lambda model, batch: (model(**batch) * scale).sum((1, 2)))
    rank = max(1, int(cut * min(shape[:2])))
    found = directions(linear, seen)
    by_loss, by_inputs = (factors(linear, each, rank) for each in (found, directions(linear, seen_of(linear, states))))
    error = [
        float(((linear(states) - made(states)).double() * found.scale).square().sum().detach())
        for made in (by_loss, by_inputs)
    ]
    assert error[0] <= error[1] * (1 + 1e-4) + 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_full_rank_changes_nothing(kind: str) -> None:
    model, batch = tiny_model(kind).double(), tiny_batch()
    wanted = answer(model, batch)
    for path, each in candidates(model).items():
        made = factors(each, directions(each, observe(model, {path: each}, rows(), row_loss)[path]), 16)
        model.get_submodule(path.rpartition(".")[0]).register_module(path.rpartition(".")[2], made)
    assert len(low_rank_maps(model)) == 12
    assert (answer(model, batch) - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("kind", MODELS)
def test_maps_of_encoder_decoders(kind: str) -> None:
    model = tiny_translator(kind)
    found = candidates(model)
    # 3 encoder layers of attention output, up and down, 2 of the decoder with cross-attention; gated ups stay whole
    assert len(found) == (12 if kind in ("t5-gated", "mt5") else 17)
    assert all(isinstance(each, nn.Linear) for each in found.values())


def test_an_architecture_without_a_description() -> None:
    model = tiny_model("bert")
    model_config(model).model_type = "gpt2"
    with pytest.raises(CheckpointError, match="architecture 'gpt2'"):
        factorise(model, rows(), row_loss, energy=0.5)


def test_ranks_are_recorded_and_the_model_itself_stays() -> None:
    model = tiny_model("bert")
    before = answer(model, tiny_batch())
    found = factorise(model, rows(), row_loss, parameters=0.7, multiple=4)
    assert torch.equal(answer(model, tiny_batch()), before) and not low_rank_maps(model)
    assert getattr(model_config(found.model), RANKS_KEY) == found.ranks
    assert {path: each.rank for path, each in low_rank_maps(found.model).items()} == found.ranks
    assert set(found.ranks.values()) <= {4, 8}
    whole = sum(each.weight.numel() for each in candidates(model).values())
    gone = sum(v.numel() for v in model.parameters()) - sum(v.numel() for v in found.model.parameters())
    assert gone == pytest.approx((1 - found.parameters) * whole) and 0.5 < found.parameters <= 0.7
    assert 0.5 < found.energy < 1


def test_twice_is_as_once_from_the_product() -> None:
    once = factorise(tiny_model("bert"), rows(), row_loss, parameters=0.7, multiple=4)
    twice = factorise(once.model, rows(), row_loss, parameters=0.7, multiple=4)
    assert low_rank_maps(twice.model).keys() == twice.ranks.keys() and twice.parameters <= 0.7


def test_each_weighting_weighs_otherwise_and_without_one_nothing_is_read() -> None:
    def never() -> Iterator[Any]:
        raise AssertionError("read")
        yield

    def no_loss(*_: Any) -> Any:
        raise AssertionError("asked")

    ways: tuple[tuple[Any, Any, Weighting], ...] = (
        (never(), no_loss, "none"),
        (rows(), no_loss, "inputs"),
        (rows(), row_loss, "loss"),
    )
    found = [factorise(tiny_model("bert"), a, b, parameters=0.6, weighting=w, multiple=2).ranks for a, b, w in ways]
    assert found[0] != found[1] != found[2]


def test_nothing_is_saved() -> None:
    with pytest.raises(RecipeError, match="factorise: no rank saves anything"):
        factorise(tiny_model("bert"), rows(), row_loss, energy=0.999999, multiple=16)


def of_low_rank(kind: str) -> Any:
    """A classifier of which most maps have factors."""
    return factorise(tiny_model(kind), rows(), row_loss, parameters=0.7, multiple=4).model


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_classifiers_answer_like_torch(kind: str) -> None:
    model, batch = of_low_rank(kind), tiny_batch(5, 9)
    standard, fused = to_onnx(model, 20), build_classifier(*read_classifier(model), LEAST_OPSET, Fused)
    names = [value.name for value in standard.graph.initializer]
    assert sum(name.endswith(".first.weight") for name in names) == len(low_rank_maps(model)) > 4
    for graph in (standard, fused, build_classifier(*read_plan(standard), LEAST_OPSET, Fused)):
        np.testing.assert_allclose(graph_logits(graph, batch), answer(model, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_smaller_classifiers_are_close(kind: str) -> None:
    model, batch = of_low_rank(kind), tiny_batch(16, 20)
    graph, wanted = to_onnx(model, 20), answer(model, batch).numpy()
    count = count_products(graph.graph).total
    assert count == 19 + len(low_rank_maps(model))
    known = {name: value.numpy() for name, value in batch.items()}
    known["token_type_ids"] = np.zeros_like(known["input_ids"])
    feeds = [{value.name: known[value.name] for value in graph.graph.input}]
    for small in (int8.dynamic(graph), int8.static(graph, feeds), weight_only(graph, 8)):
        assert count_products(small.graph).quantized == count
        found = graph_logits(small, batch)
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.97


@pytest.mark.slow
def test_a_traced_classifier_answers_like_torch() -> None:
    model, batch = of_low_rank("bert"), tiny_batch(5, 9)
    np.testing.assert_allclose(graph_logits(to_onnx(model, 18), batch), answer(model, batch), atol=1e-5, rtol=1e-5)


def test_factors_beside_others_are_multiplied_out() -> None:
    model, batch = tiny_model("bert"), tiny_batch()
    part = model.get_submodule("bert.encoder.layer.0.attention.self")
    part.register_module("query", factors(part.query, directions(part.query), 5))  # type: ignore[arg-type]
    np.testing.assert_allclose(graph_logits(to_onnx(model, 20), batch), answer(model, batch), atol=1e-5, rtol=1e-5)


def of_low_rank_translator(kind: str) -> Any:
    """An encoder-decoder of which most maps have factors."""
    model = tiny_translator(kind)
    return factorise(model, pairs(model), row_loss, parameters=0.7, multiple=4).model


def step_logits(graph: Any, model: Any) -> Any:
    """The logits of the first step and the next, `(2, rows, vocabulary)`."""
    ids, mask = source_batch(model)
    step = opened(graph).start(ids, mask)
    start = np.full(len(ids), model.config.decoder_start_token_id)
    return np.stack([step(start), step(np.full(len(ids), 9))])


def wanted_logits(model: Any) -> Any:
    ids, mask = (torch.from_numpy(each) for each in source_batch(model))
    written = torch.tensor([[model.config.decoder_start_token_id, 9]] * len(ids))
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, decoder_input_ids=written).logits
    return found.transpose(0, 1).numpy()


@pytest.mark.parametrize("kind", MODELS)
def test_graphs_of_encoder_decoders_answer_like_torch(kind: str) -> None:
    model = of_low_rank_translator(kind)
    assert len(low_rank_maps(model)) > 4
    graph, wanted = translator_to_onnx(model, TASK, 20), wanted_logits(model)
    scale = np.abs(wanted).max()
    for each in (graph, build(*read_model(model, 40), LEAST_OPSET, Fused)):
        np.testing.assert_allclose(step_logits(each, model) / scale, wanted / scale, atol=1e-5)
    for small in (quantize_translation(graph), weight_only(graph, 8)):
        count = count_products(small.graph)
        assert count.quantized == count.total > 2 * len(low_rank_maps(model))
        found = step_logits(small, model)
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("wide", [False, True])
def test_both_factors_have_the_type_of_their_map(wide: bool) -> None:
    small = narrowed(*read_model(of_low_rank_translator("marian"), 40), wide)
    for part, kind in (("down", np.float32 if wide else np.float16), ("attention.out", np.float16)):
        found = [small[name].dtype for name in small if f".{part}.first.w" in name or f".{part}.second.w" in name]
        assert len(found) >= 2 and set(found) == {np.dtype(kind)}
