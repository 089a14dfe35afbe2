"""Zeros among weights: chosen by hand-made scores, kept while training, and still there in what is shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_layer_costs import quantized
from test_training import SETTINGS, by_label, split
from tiny_models import KINDS, tiny_batch, tiny_model
from torch import nn
from torch.nn import functional

from compress.pruning.sparse import (
    Sparsity,
    input_norms,
    largest,
    linears,
    masked,
    masks,
    two_of_four,
    zeros,
)
from distill.batches import collate, encode
from distill.checkpoint import load_model, load_tokenizer, save
from distill.dataset import Split
from distill.errors import CheckpointError, RecipeError
from distill.muon import muon
from distill.progress import silent
from distill.recipe import TrainingRecipe
from distill.rounding import rounded
from distill.task import Task
from distill.training import Course, train
from export.graph import export
from export.graphs.products import zeros_by_product

TASK = Task("classification", ("negative", "positive"), max_length=32)
BY_HAND = [
    ([[4.0, 1, 2, 3]], [[1, 0, 0, 1]]),
    ([[1.0, 2, 3, 4, 4, 3, 2, 1]], [[0, 0, 1, 1, 1, 1, 0, 0]]),
    ([[1.0, 1, 1, 1], [0, 0, 5, 0]], [[1, 1, 0, 0], [1, 0, 1, 0]]),
    ([[1.0, 2, 3, 4, 0.1, 0.2]], [[0, 0, 1, 1, 1, 1]]),
    ([[1.0, 2, 3]], [[1, 1, 1]]),
]


@pytest.mark.parametrize(("scores", "kept"), BY_HAND)
def test_two_of_four_by_hand(scores: list[list[float]], kept: list[list[int]]) -> None:
    assert two_of_four(torch.tensor(scores)).int().tolist() == kept


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.0, [[1, 1, 1, 1]] * 2), (0.25, [[1, 0, 1, 1], [1, 1, 1, 0]]), (0.5, [[1, 0, 0, 1], [1, 1, 0, 0]])],
)
def test_the_smallest_of_each_row_by_hand(share: float, kept: list[list[int]]) -> None:
    assert largest(torch.tensor([[9.0, 1, 2, 3], [5, 5, 5, 5]]), share).int().tolist() == kept


@given(outputs=st.integers(1, 5), inputs=st.integers(1, 17), seed=st.integers(0, 100))
def test_of_each_four_two_are_left(outputs: int, inputs: int, seed: int) -> None:
    scores = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    kept, whole = two_of_four(scores), inputs - inputs % 4
    assert (kept[:, :whole].reshape(outputs, -1, 4).sum(-1) == 2).all() and kept[:, whole:].all()
    lost = torch.where(kept, torch.inf, scores)[:, :whole].reshape(outputs, -1, 4)
    left = torch.where(kept, scores, -torch.inf)[:, :whole].reshape(outputs, -1, 4)
    assert (torch.where(left.isinf(), torch.inf, left).amin(-1) >= torch.where(lost.isinf(), 0, lost).amax(-1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_inside_of_layers(kind: str) -> None:
    model = tiny_model(kind)
    assert len(linears(model)) == 4 * 6
    assert not any("embed" in name or "classifier" in name or "pooler" in name for name in linears(model))
    assert all(f"{name}.weight" in dict(model.named_parameters()) for name in linears(model))


@pytest.mark.parametrize("sparsity", [0.3, 0.5, "2:4"])
def test_as_many_as_were_asked_for(sparsity: Sparsity) -> None:
    model = tiny_model("bert")
    found = masks(model, [tiny_batch()], sparsity)
    assert found.keys() == {f"{name}.weight" for name in linears(model)}
    assert zeros(found) == pytest.approx(0.5 if sparsity == "2:4" else sparsity, abs=0.02)
    assert all(len(set(mask.sum(1).tolist())) == 1 for mask in found.values())  # every output has as many


def test_without_inputs_size_decides() -> None:
    model = tiny_model("bert", layers=1)
    name, linear = next(iter(linears(model).items()))
    found = masks(model, [], 0.5)[f"{name}.weight"]
    for sizes, stay in zip(linear.weight.detach().abs(), found, strict=True):
        assert sizes[stay].min() >= sizes[~stay].max()


def test_norms_are_those_of_the_inputs_without_padding() -> None:
    model, batch = tiny_model("bert", layers=1), tiny_batch(3, 7)
    name = next(name for name in linears(model) if name.endswith("query"))
    seen: list[torch.Tensor] = []
    handle = linears(model)[name].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    whole = input_norms(model, [batch])[name]
    handle.remove()
    wanted = seen[0][batch["attention_mask"].bool()].norm(dim=0)
    assert torch.allclose(whole, wanted, rtol=1e-5)
    rows = [{key: value[row : row + 1] for key, value in batch.items()} for row in range(3)]
    assert torch.allclose(input_norms(model, rows)[name], wanted, rtol=1e-4)


def test_large_inputs_keep_their_weights() -> None:
    model = tiny_model("bert", layers=1)
    with torch.no_grad():  # one channel of the embedding is large, whatever is read
        norm = model.get_submodule("bert.embeddings.LayerNorm")
        norm.bias[5] = 1000.0  # type: ignore[index, operator]
    name = next(name for name in linears(model) if name.endswith("query"))
    found = masks(model, [tiny_batch()], "2:4")[f"{name}.weight"]
    assert found[:, 5].all() and not masks(model, [], "2:4")[f"{name}.weight"][:, 5].all()


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 2, "4:8", True])
def test_no_share(sparsity: Any) -> None:
    with pytest.raises(RecipeError, match='expected "2:4" or a share'):
        masks(tiny_model("bert", layers=1), [], sparsity)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def mixing(model: nn.Module) -> torch.optim.Optimizer:
    """Muon, whose step mixes the numbers of a matrix."""
    from transformers import TrainingArguments

    return muon(model, TrainingArguments(output_dir="unused", learning_rate=0.1, report_to="none", use_cpu=True))


@pytest.mark.parametrize("make", [adamw, momentum, mixing])
@pytest.mark.parametrize("rounding", [False, True])
def test_zeros_stay_through_steps(make: Callable[[nn.Module], torch.optim.Optimizer], rounding: bool) -> None:
    model, batch = tiny_model("bert", layers=2), tiny_batch()
    chosen = masks(model, [batch], "2:4")
    optimizer, before = make(model), {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer.zero_grad()
    functional.cross_entropy(model(**batch).logits, torch.tensor([0, 1, 2])).backward()
    optimizer.step()  # what it remembers of this step would move all weights in the next ones
    with masked(model, chosen), rounded(model) if rounding else torch.enable_grad():
        for _ in range(2):
            optimizer.zero_grad()
            functional.cross_entropy(model(**batch).logits, torch.tensor([0, 1, 2])).backward()
            optimizer.step()
            for name, mask in chosen.items():
                assert (model.get_parameter(name)[~mask] == 0).all()
    for name, mask in chosen.items():
        weight = model.get_parameter(name)
        assert (weight[~mask] == 0).all()
        assert (weight[mask] != before[name][mask]).float().mean() > 0.9


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}, {"optim": "muon"}])
def test_a_whole_training_keeps_the_zeros(tiny_checkpoint: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    tokenizer, model = load_tokenizer(tiny_checkpoint), load_model(tiny_checkpoint)
    train_rows, validation = (encode(tokenizer, split(rows, rows), TASK) for rows in (48, 32))
    course = Course("prune", train_rows, validation, by_label, TASK, 7)
    recipe = TrainingRecipe.model_validate(SETTINGS | {"num_train_epochs": 2} | settings)
    chosen = masks(model, [collate(tokenizer, train_rows[:16])], "2:4")
    before = {name: model.get_parameter(name).detach().clone() for name in chosen}
    with masked(model, chosen):
        train(model, tokenizer, course, recipe, tmp_path / ".work-prune", silent)
        for name, mask in chosen.items():
            assert (model.get_parameter(name)[~mask] == 0).all()
    assert any((model.get_parameter(name)[mask] != before[name][mask]).any() for name, mask in chosen.items())
    written = sorted((tmp_path / ".work-prune").glob("checkpoint-*/model.safetensors"))
    assert written
    for path in written:
        stored = load_file(path)
        assert all((stored[name][~mask] == 0).all() for name, mask in chosen.items())


def test_afterwards_nothing_holds_the_zeros() -> None:
    model, batch = tiny_model("bert", layers=1), tiny_batch()
    chosen = masks(model, [], 0.5)
    with masked(model, chosen):
        pass
    optimizer = adamw(model)
    functional.cross_entropy(model(**batch).logits, torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    assert all((model.get_parameter(name)[~mask] != 0).any() for name, mask in chosen.items())


def test_masks_of_another_model() -> None:
    chosen = masks(tiny_model("bert", layers=2), [], 0.5)
    with pytest.raises(CheckpointError, match="another model") as caught, masked(tiny_model("bert", layers=1), chosen):
        pass
    assert len(caught.value.problems) == 6


def test_zeros_survive_saving_and_export(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(tiny_checkpoint)
    chosen = masks(model, [], "2:4")
    with masked(model, chosen):
        pass
    save(model, load_tokenizer(tiny_checkpoint), TASK, tmp_path / "sparse")
    again = load_model(tmp_path / "sparse")
    assert all(((again.get_parameter(name) == 0) == ~mask).all() for name, mask in chosen.items())
    fp32 = export(tmp_path / "sparse", tmp_path / "fp32", opset=20, atol=1e-4, examples=Split(("a film",), None, ()))
    found = zeros_by_product(onnx.load(fp32.model_path).graph)
    shares = {name: each.zeros / each.elements for name, each in found.items()}
    assert {share for name, share in shares.items() if name.startswith("encoder.")} == {0.5}
    assert all(share == 0 for name, share in shares.items() if name.startswith("head."))
    int8 = zeros_by_product(onnx.load(quantized(fp32, tmp_path / "int8").model_path).graph)
    assert int8.keys() == found.keys()
    assert all(int8[name].zeros >= found[name].zeros for name in found)
