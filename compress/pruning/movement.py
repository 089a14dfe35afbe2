"""Heads and neurons whose worth is learned while the model is trained: movement pruning.

Each has a score S and a mask M, with which its output is multiplied: 1 for the best of all scores, 0 for the others,
whose share grows. S learns by the gradient of M, as if it were M (straight-through), so that it falls where the loss
would with the unit's weights W going to zero: dL/dM is the sum of W * dL/dW over the columns that read the unit (Sanh
et al. 2020, "Movement pruning", section 4; with one score a block, Lagunas et al. 2021, "Block pruning for faster
transformers", section 3). What is masked comes back if its score does.

Of the share that goes in the end, 1 - (1 - t)³ is masked when t of the time between both pauses is over (Zhu and Gupta
2017, "To prune, or not to prune", eq. 1): none in the first tenth of the steps, all of it in the last third, in which
the model settles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from compress.pruning.importance import Scores
from compress.pruning.prune import chosen
from distill.layers import Units, layers

FIRST, LAST = 0.1, 1 / 3
"""The shares of the steps in which nothing is masked, and in which all of it is."""
SCORES = "movement_scores"


def masked_share(step: int, steps: int) -> float:
    """How much is masked after so many steps of a training, of all that goes in the end."""
    start, end = FIRST * steps, (1 - LAST) * steps
    done = min(1.0, max(0.0, (step - start) / (end - start)))
    return float(1 - (1 - done) ** 3)


class Movement(TrainerCallback):  # type: ignore[misc]
    """Scores and masks of a model's heads and neurons, which follow a training."""

    def __init__(self, model: nn.Module, heads: float, neurons: float) -> None:
        """Learn which of them go: these shares of all heads and neurons, as `prune` takes them."""
        self.found = layers(model)
        self.heads, self.neurons = heads, neurons
        self.masks = {id(units): torch.ones(units.count) for units in self.units}

    @property
    def units(self) -> list[Units]:
        """All kinds of units of all layers."""
        return [units for layer in self.found for units in layer.units.values()]

    @property
    def scores(self) -> list[Scores]:
        """The scores of each layer as they are now."""
        return [{kind: _score(units).detach().cpu() for kind, units in each.units.items()} for each in self.found]

    def mask(self, share: float) -> None:
        """Mask this share of what goes in the end, the least by today's scores."""
        kept = chosen(self.found, self.scores, share * self.heads, share * self.neurons)
        for layer, stay in zip(self.found, kept, strict=True):
            for kind, units in layer.units.items():
                mask = torch.zeros(units.count)
                mask[stay.get(kind, list(range(units.count)))] = 1
                self.masks[id(units)] = mask

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A training that goes on masks what it masked."""
        self.mask(masked_share(state.global_step, state.max_steps))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The scores have moved."""
        self.mask(masked_share(state.global_step, state.max_steps))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What was the best with less masked does not count."""
        if masked_share(state.best_global_step or 0, state.max_steps) < 1:
            state.best_metric = None


@contextmanager
def moving(model: nn.Module, heads: float, neurons: float) -> Iterator[Movement]:
    """While entered, the model has scores to be trained with its weights, and masks; behind it, it is as it was.

    The scores are parameters of the maps that read the units, so that a training saves and loads them with all else.
    """
    found = Movement(model, heads, neurons)
    handles = []
    for units in found.units:
        weight = units.out.weight
        units.out.register_parameter(SCORES, nn.Parameter(torch.zeros(units.count, device=weight.device)))
        handles.append(units.out.register_forward_pre_hook(_masking(found, units)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        for units in found.units:
            delattr(units.out, SCORES)


def _masking(found: Movement, units: Units) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor]]:
    """A hook that multiplies a map's input by its units' masks, whose gradient goes to the scores."""

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        score = _score(units)
        gate = found.masks[id(units)].to(score.device) + score - score.detach()
        return (inputs[0] * gate.repeat_interleave(units.width).to(inputs[0].dtype),)

    return hook


def _score(units: Units) -> nn.Parameter:
    """The scores of the units of one kind in one layer."""
    return cast(nn.Parameter, getattr(units.out, SCORES))
