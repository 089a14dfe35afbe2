"""Pruning: importance against what switching off really does, what is chosen, and that it is really gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from conftest import toy_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import KINDS, LABELS, answer, tiny_batch, tiny_model
from torch import nn
from torch.nn import functional

from compress.prune import Importance, choose, importance, prune
from distill.checkpoint import save
from distill.layers import LayerSize, layers
from distill.models import copied
from distill.recipe import StudentRecipe
from distill.task import Task

GOLD = torch.tensor([0, 1, 2])


def row_loss(logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return functional.cross_entropy(logits, batch["labels"], reduction="none")


def batches(rows: int = 3) -> list[dict[str, torch.Tensor]]:
    whole = {**tiny_batch(), "labels": GOLD}
    return [{key: value[start : start + rows] for key, value in whole.items()} for start in range(0, 3, rows)]


def scores(model: nn.Module) -> list[Importance]:
    return importance(model, batches(), row_loss)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_and_neurons_that_nobody_reads_have_no_importance(kind: str) -> None:
    model = tiny_model(kind)
    with torch.no_grad():
        layer = layers(model)[1]
        layer.linear("attention_output").weight[:, 4:8] = 0  # head 1
        layer.linear("down").weight[:, 7] = 0
    found = scores(model)[1]
    assert found.heads[1] == 0 and found.neurons[7] == 0
    assert (found.heads[[0, 2, 3]] > 0).all()
    assert found.heads.shape == (4,) and found.neurons.shape == (24,)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_importance_is_the_slope_of_the_loss(kind: str) -> None:
    """|dL/dgate| of one row, against the loss measured with a head's and a neuron's output a little smaller."""
    model, step = tiny_model(kind).double(), 1e-6
    row = {key: value[:1] for key, value in batches()[0].items()}
    inputs = {key: row[key] for key in ("input_ids", "attention_mask")}
    found = importance(model, [row], row_loss)
    before = row_loss(answer(model, inputs), row)
    for part, name, columns in (("attention_output", "heads", slice(8, 12)), ("down", "neurons", slice(5, 6))):
        linear = layers(model)[2].linear(part)
        with torch.no_grad():
            linear.weight[:, columns] *= 1 - step
        slope = ((before - row_loss(answer(model, inputs), row)) / step).abs()
        with torch.no_grad():
            linear.weight[:, columns] /= 1 - step
        unit = columns.start // (4 if name == "heads" else 1)
        assert getattr(found[2], name)[unit].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-6)


def test_importance_is_a_mean_over_rows_however_they_are_batched() -> None:
    model = tiny_model("bert")
    one, three = importance(model, batches(1), row_loss), importance(model, batches(3), row_loss)
    for a, b in zip(one, three, strict=True):
        assert torch.allclose(a.heads, b.heads, rtol=1e-4, atol=1e-6)
        assert torch.allclose(a.neurons, b.neurons, rtol=1e-4, atol=1e-6)


def test_measuring_leaves_no_trace() -> None:
    model = tiny_model("bert")
    before = answer(model, tiny_batch())
    scores(model)
    assert torch.equal(answer(model, tiny_batch()), before)
    assert all(value.grad is None for value in model.parameters())
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_without_rows_everything_is_equally_important() -> None:
    assert all(not layer.heads.any() for layer in importance(tiny_model("bert"), [], row_loss))


T = torch.tensor


@pytest.mark.parametrize(
    ("values", "removed", "multiple", "expected"),
    [
        ([[1, 2, 3, 4]], 0.5, 1, [[2, 3]]),
        ([[4, 1, 3, 2]], 0.5, 1, [[0, 2]]),
        ([[4, 1, 3, 2]], 0.0, 1, [[0, 1, 2, 3]]),
        ([[4, 1, 3, 2]], 0.99, 1, [[0]]),
        # a layer's scores are divided by their norm: the quiet layer is not emptied
        ([[3.0, 4.0], [0.03, 0.04]], 0.5, 1, [[1], [1]]),
        # one layer has a single strong unit, the other four even ones (norm 1 each: 1, 0, 0, 0 and four halves)
        ([[5.0, 0, 0, 0], [1.0, 1.0, 1.0, 1.0]], 0.375, 1, [[0], [0, 1, 2, 3]]),
        # every layer keeps one unit at least
        ([[1.0, 0.9], [0.5, 0.0], [0.2, 0.0]], 0.9, 1, [[0], [0], [0]]),
        # rounded to multiples, at least one of them
        ([list(range(8))], 0.5, 4, [[4, 5, 6, 7]]),
        ([list(range(8))], 0.4, 4, [[4, 5, 6, 7]]),
        ([list(range(8))], 0.2, 4, [list(range(8))]),
        ([list(range(8))], 0.9, 4, [[4, 5, 6, 7]]),
        # a layer smaller than a multiple is not rounded
        ([[3.0, 1.0, 2.0]], 0.34, 4, [[0, 2]]),
        # equal scores: the first ones stay, and no more than asked for
        ([[1.0, 1.0, 1.0, 1.0]], 0.5, 1, [[0, 1]]),
        ([[1.0, 1.0], [1.0, 1.0]], 0.5, 1, [[0], [0]]),
        ([[0.0, 0.0, 0.0, 0.0]], 0.5, 1, [[0, 1]]),
    ],
)
def test_choose(values: list[list[float]], removed: float, multiple: int, expected: list[list[int]]) -> None:
    assert choose([T(value, dtype=torch.float32) for value in values], removed, multiple) == expected


tables = st.integers(1, 12).flatmap(
    lambda units: st.lists(st.lists(st.floats(0, 10, width=32), min_size=units, max_size=units), min_size=1, max_size=5)
)


@given(values=tables, removed=st.floats(0, 0.99), multiple=st.sampled_from([1, 2, 4]))
def test_what_is_chosen_is_there_once_in_order_and_never_nothing(
    values: list[list[float]], removed: float, multiple: int
) -> None:
    chosen = choose([T(value) for value in values], removed, multiple)
    for value, kept in zip(values, chosen, strict=True):
        assert kept == sorted(set(kept)) and 1 <= len(kept) <= len(value)
        assert set(kept) <= set(range(len(value)))
        assert len(kept) % multiple == 0 or len(kept) < multiple or len(kept) == len(value)


@given(values=tables, removed=st.floats(0, 0.99))
def test_the_share_that_is_removed(values: list[list[float]], removed: float) -> None:
    total = sum(map(len, values))
    kept = sum(map(len, choose([T(value) for value in values], removed)))
    assert kept == max(len(values), round(total * (1 - removed)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "neurons"), [(0.25, 0.5), (0.0, 0.5), (0.5, 0.0), (0.74, 0.9)])
def test_the_shares_are_gone_from_the_model(kind: str, heads: float, neurons: float) -> None:
    model = tiny_model(kind)
    sizes = prune(model, scores(model), heads, neurons)
    assert sizes == [layer.size for layer in layers(model)]
    assert sum(size.heads for size in sizes) == round(16 * (1 - heads))
    assert abs(sum(size.neurons for size in sizes[:-1]) - round(72 * (1 - neurons))) <= 3
    assert sizes[-1].neurons == 24  # computed for one token: the last layer's neurons take no time
    assert answer(model, tiny_batch()).shape == (3, 3)


def test_the_right_ones_are_removed() -> None:
    model = tiny_model("bert")
    found = [Importance(torch.ones(4), torch.ones(24)) for _ in range(4)]
    for layer, score in enumerate(found):
        score.heads[layer] = 0
        score.neurons[layer::3] = 0
    before = [layer.linear("query").weight.clone() for layer in layers(model)]
    up = [layer.linear("up").weight.clone() for layer in layers(model)]
    sizes = prune(model, found, 0.25, 1 / 3 + 1e-9)
    assert sizes[0] == LayerSize(3, 16)
    for number, layer in enumerate(layers(model)):
        rows = [row for row in range(16) if row // 4 != number]
        assert torch.equal(layer.linear("query").weight, before[number][rows])
        neurons = [n for n in range(24) if number == 3 or not (n >= number and (n - number) % 3 == 0)]
        assert torch.equal(layer.linear("up").weight, up[number][neurons][: layer.size.neurons])


def test_an_only_layer_loses_neurons() -> None:
    model = copied(tiny_model("bert"), StudentRecipe(layers=1))
    assert prune(model, scores(model), 0.5, 0.5) == [LayerSize(2, 12)]


def test_neurons_come_in_multiples_that_processors_like() -> None:
    model = tiny_model("bert")
    for layer in layers(model):
        layer.keep({"heads": range(4), "neurons": [n % 24 for n in range(160)]})
    sizes = prune(model, scores(model), 0.25, 0.5)
    assert all(size.neurons % 32 == 0 and size.neurons >= 32 for size in sizes)


def test_a_pruned_checkpoint_answers_the_same_in_another_process(tmp_path: Path) -> None:
    model = tiny_model("bert")
    prune(model, scores(model), 0.5, 0.5)
    save(model, toy_tokenizer(), Task("classification", LABELS), tmp_path / "pruned")
    code = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_models import answer, tiny_batch
from distill.checkpoint import load_model
torch.set_num_threads(1)
print(answer(load_model(Path(sys.argv[1])), tiny_batch()).numpy().tobytes().hex())
"""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", code, str(tmp_path / "pruned"), str(root / "tests")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wanted = answer(model, tiny_batch()).numpy().tobytes().hex()
    torch.set_num_threads(threads)
    assert done.stdout.strip() == wanted
