"""An exponential moving average of a model's weights: what is validated, kept and shipped.

Of the two usual ways to average, this one and the mean of the last checkpoints, this one is validated as it goes:
the best checkpoint and early stopping are about the weights that are kept. It costs one more copy of the weights and
no more disk than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

RAW = "raw.safetensors"
"""In a checkpoint of an averaged training, the weights that training goes on with; the average is the model's file."""


class Average(TrainerCallback):  # type: ignore[misc]
    """average = decay * average + (1 - decay) * weights after each step.

    In the first steps the decay is (1 + step) / (10 + step), so that the random start is forgotten (as in TensorFlow's
    ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float, start: Path | None) -> None:
        """Average `model`; a training that goes on from `start` finds both weights there."""
        self.model = model
        self.decay = decay
        self.start = start
        self.values: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The model holds the average that was saved, or its first weights; training goes on with its own."""
        self.values = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        if self.start is not None:
            raw = load_file(self.start / RAW)
            with torch.no_grad():
                for name, value in self.model.named_parameters():
                    value.copy_(raw[name])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move a little towards the new weights."""
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                self.values[name].lerp_(value, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While entered, the model's weights are the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """The average for the weights, and the other way round."""
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                before = value.clone()
                value.copy_(self.values[name])
                self.values[name].copy_(before)

    def save_raw(self, folder: Path) -> None:
        """Write the weights that training goes on with into a checkpoint."""
        save_file({name: value.detach().cpu() for name, value in self.model.named_parameters()}, folder / RAW)
