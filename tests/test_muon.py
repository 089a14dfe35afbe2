"""Which weights Muon moves, how far, and how AdamW moves the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import nn
from transformers import TrainingArguments
from translation_models import tiny_translator

from distill.muon import hidden_matrices, muon

COUNTS: list[tuple[Callable[[], nn.Module], int]] = [
    # 3 encoder layers of 4 + 2 matrices, 2 decoder layers of 8 + 2; T5's gate is one more a layer
    (lambda: tiny_translator("marian"), 38),
    (lambda: tiny_translator("mbart"), 38),
    (lambda: tiny_translator("t5"), 38),
    (lambda: tiny_translator("t5-gated"), 43),
    # 4 layers of 4 + 2
    (lambda: tiny_model("bert"), 24),
    (lambda: tiny_model("roberta"), 24),
    (lambda: tiny_model("electra"), 24),
    (lambda: tiny_model("distilbert"), 24),
]


@pytest.mark.parametrize(("make", "count"), COUNTS)
def test_the_matrices_of_layers_and_nothing_else(make: Callable[[], nn.Module], count: int) -> None:
    model = make()
    names = {id(value): name for name, value in model.named_parameters()}
    found = [names[id(weight)] for weight in hidden_matrices(model)]
    assert len(found) == len(set(found)) == count
    assert not [name for name in found if "embed" in name or "head" in name or "classifier" in name]


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings = {"learning_rate": 0.01, "weight_decay": 0.0, "adam_beta2": 0.98, **changes}
    return TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", **settings)


class Two(nn.Module):
    """One layer behind one head."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(columns, rows)])
        self.head = nn.Linear(rows, 2)


def moved(model: Two, folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """How far one step moves each weight, after random gradients."""
    generator = torch.Generator().manual_seed(0)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = torch.randn(value.shape, generator=generator)
    muon(model, arguments(folder, **changes)).step()
    return {name: value.detach() - before[name] for name, value in model.named_parameters()}


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (64, 16), (16, 64)])
def test_a_step_is_orthogonal_and_as_large_as_one_of_adamw(rows: int, columns: int, tmp_path: Path) -> None:
    change = moved(Two(rows, columns), tmp_path)["layers.0.weight"]
    values = torch.linalg.svdvals(change / (0.01 * 0.2 * max(rows, columns) ** 0.5))
    assert values.min() > 0.5 and values.max() < 1.5, "five iterations bring singular values near 1"
    # Each of the smaller side's singular values is about 1, so the root mean square is about 0.2 times the rate.
    assert change.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.3)


def test_the_rest_moves_by_adamw(tmp_path: Path) -> None:
    change = moved(Two(16, 16), tmp_path)
    for name in ("layers.0.bias", "head.weight", "head.bias"):
        assert change[name].abs().allclose(torch.tensor(0.01), rtol=1e-3), "the first step of Adam is the rate itself"


DECAYS = {"layers.0.weight": 0.5, "head.weight": 0.5, "layers.0.bias": 0.0, "head.bias": 0.0}


def test_matrices_decay_and_biases_do_not(tmp_path: Path) -> None:
    models = Two(16, 16), Two(16, 16)
    models[1].load_state_dict(models[0].state_dict())
    start = {name: value.clone() for name, value in models[0].state_dict().items()}
    plain, decayed = (moved(model, tmp_path, weight_decay=rate) for model, rate in zip(models, (0.0, 0.5), strict=True))
    for name, rate in DECAYS.items():
        assert (decayed[name] - plain[name]).allclose(-0.01 * rate * start[name], atol=1e-6)
