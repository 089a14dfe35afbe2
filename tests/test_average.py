"""The moving average by hand, exchanged with the weights and back, and found again in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerState

from distill.average import Average

NOTHING: Any = None


def one_weight(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def step(average: Average, model: nn.Linear, value: float, number: int) -> float:
    nn.init.constant_(model.weight, value)
    average.on_step_end(NOTHING, TrainerState(global_step=number), NOTHING)
    return float(average.values["weight"])


def test_by_hand() -> None:
    model = one_weight(1.0)
    average = Average(model, 0.5, None)
    average.on_train_begin(NOTHING, TrainerState(), NOTHING)
    # step 1: the decay is 2 / 11; step 2: 3 / 12; step 9: 10 / 19 is more than 0.5
    assert step(average, model, 12.0, 1) == pytest.approx(2 / 11 * 1 + 9 / 11 * 12)
    assert step(average, model, 6.0, 2) == pytest.approx(0.25 * 10 + 0.75 * 6)
    assert step(average, model, 1.0, 9) == pytest.approx(0.5 * 7 + 0.5 * 1)


def test_in_place_and_back() -> None:
    model = one_weight(2.0)
    average = Average(model, 0.9, None)
    average.on_train_begin(NOTHING, TrainerState(), NOTHING)
    nn.init.constant_(model.weight, 5.0)
    with pytest.raises(KeyError), average.in_place():
        assert model.weight.item() == 2.0
        raise KeyError
    assert model.weight.item() == 5.0
    assert float(average.values["weight"]) == 2.0


def test_both_weights_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    model = one_weight(5.0)
    Average(model, 0.9, None).save_raw(tmp_path)
    resumed = one_weight(2.0)  # what Trainer loaded: the average
    average = Average(resumed, 0.9, tmp_path)
    average.on_train_begin(NOTHING, TrainerState(), NOTHING)
    assert torch.equal(resumed.weight, model.weight)
    assert float(average.values["weight"]) == 2.0
