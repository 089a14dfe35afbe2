"""Pruning as a recipe says: layers first, then channels, heads and neurons in rounds, with a recovery behind each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from compress.pruning import cost
from compress.pruning.fewer_layers import fewer_layers
from compress.pruning.importance import channel_importance, importance
from compress.pruning.movement import moving
from compress.pruning.prune import prune, prune_width, prune_within, whole_cost
from compress.pruning.sparse import Masks, masked, masks, zeros
from compress.pruning.speed import milliseconds, speedup_over
from compress.pruning.target import prune_to_speed
from distill.batches import Batch
from distill.layers import layers
from distill.opened import Manifest, Run
from distill.recipe import PruneRecipe
from distill.stream import stream
from distill.tasks import KINDS

HEADS, NEURONS = 0.25, 0.5
"""Shares that go where the recipe names none."""
SHORT = 4
"""A speedup has to hold for a text of so many times fewer tokens, too, whose time goes elsewhere."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned model that has recovered, and what was done to it."""

    model: nn.Module
    details: Manifest


def prune_and_recover(opened: Run, model: nn.Module, tokenizer: PreTrainedTokenizerBase, recipe: PruneRecipe) -> Pruned:
    """Prune a model of the run's task, and let it recover by distilling.

    Raises:
        RecipeError: what the recipe wants removed cannot go, or does not make the model fast enough.
    """
    goal = _goal(opened, recipe, model)
    before, width = [layer.size.to_json() for layer in layers(model)], stream(model).width
    model, kept = fewer_layers(model, recipe)
    kind = KINDS[opened.dataset.task.kind]
    batches = kind.asked_batches(opened, model, tokenizer, recipe, recipe.importance_examples)
    loss, result = kind.row_loss(recipe), dict[str, Any]()
    chosen: Masks = {}
    for number in range(1, recipe.rounds + 1):
        scores = None if recipe.importance == "movement" else importance(model, batches, loss, recipe.importance)
        if recipe.width:
            measure = "taylor" if recipe.importance == "movement" else recipe.importance
            _narrow(model, channel_importance(model, batches, loss, measure), recipe, width, number)
        recover = partial(kind.recover, opened, model, tokenizer, _round(recipe))
        if scores is None:
            result = _by_movement(model, recipe, recover)
            continue
        goal(model, scores, number)
        chosen = _zeroed(model, opened, batches, recipe) if number == recipe.rounds else {}
        with masked(model, chosen):
            result = dict(recover("prune" if recipe.rounds == 1 else f"prune-{number}"))
    sizes = [layer.size.to_json() for layer in layers(model)]
    found = {"kept_layers": kept, "layers_before": before, "layers": sizes}
    found |= {"width_before": width, "width": stream(model).width} | ({"zeros": zeros(chosen)} if chosen else {})
    return Pruned(model, {**result, **found})


def _narrow(model: nn.Module, scores: torch.Tensor, recipe: PruneRecipe, width: int, number: int) -> None:
    """Remove a round's part of the `width` channels that were there."""
    left = width * (1 - recipe.width) ** (number / recipe.rounds)
    prune_width(model, scores, max(0.0, 1 - left / len(scores)))


def _by_movement(model: nn.Module, recipe: PruneRecipe, recover: Callable[..., Manifest]) -> dict[str, Any]:
    """Learn in the recovery which heads and neurons go, and remove them behind it."""
    heads, neurons = _shares(recipe)
    with moving(model, heads, neurons) as movement:
        result = recover("prune", (movement,))
        scores = movement.scores
    prune(model, scores, heads, neurons)
    return dict(result)


def _zeroed(model: nn.Module, opened: Run, batches: Sequence[Batch], recipe: PruneRecipe) -> Masks:
    """Which weights stay, by their size and, for classifiers, that of what they are multiplied with."""
    if recipe.sparsity is None:
        return {}
    return masks(model, batches if opened.dataset.task.kind == "classification" else (), recipe.sparsity)


def _round(recipe: PruneRecipe) -> PruneRecipe:
    """One round's part of the training."""
    training = recipe.training
    if training is None or recipe.rounds == 1:
        return recipe
    steps = max(1, training.max_steps // recipe.rounds) if training.max_steps > 0 else -1
    part = {"num_train_epochs": training.num_train_epochs / recipe.rounds, "max_steps": steps}
    return recipe.model_copy(update={"training": training.model_copy(update=part)})


Goal = Callable[[nn.Module, Sequence[Mapping[str, Any]], int], object]
"""What removes the units of a round from a model with these scores."""


def _goal(opened: Run, recipe: PruneRecipe, whole: nn.Module) -> Goal:
    """What the recipe wants; `whole` is the model before anything is removed."""
    if recipe.parameters is not None:
        return _parameters_goal(recipe, recipe.parameters)
    if recipe.speedup is None and recipe.latency_ms is None:
        return _shares_goal(recipe)
    task, opset = opened.dataset.task, opened.recipe.export.opset
    wanted = recipe.speedup or milliseconds(whole, task, opset, recipe.length) / (recipe.latency_ms or 1)
    lengths = (recipe.length,) if recipe.latency_ms else (max(1, recipe.length // SHORT), recipe.length)
    compare = speedup_over(whole, task, opset, lengths)

    def to_speed(model: nn.Module, scores: Sequence[Mapping[str, Any]], number: int) -> object:
        costs = cost.multiplications(model, recipe.length)
        return prune_to_speed(model, scores, costs, wanted ** (number / recipe.rounds), compare)

    return to_speed


def _parameters_goal(recipe: PruneRecipe, share: float) -> Goal:
    """So many of the parameters stay, spread over the layers by their worth."""

    def to_parameters(model: nn.Module, scores: Sequence[Mapping[str, Any]], number: int) -> object:
        costs = cost.parameters(model)
        return prune_within(model, scores, costs, share ** (1 / recipe.rounds) * whole_cost(model, costs))

    return to_parameters


def _shares_goal(recipe: PruneRecipe) -> Goal:
    """So many of the heads and neurons go."""
    shares = _shares(recipe)

    def to_shares(model: nn.Module, scores: Sequence[Mapping[str, Any]], number: int) -> object:
        heads, neurons = (1 - (1 - share) ** (1 / recipe.rounds) for share in shares)
        return prune(model, scores, heads, neurons)

    return to_shares


def _shares(recipe: PruneRecipe) -> tuple[float, float]:
    """The shares of heads and neurons that go."""
    return HEADS if recipe.heads is None else recipe.heads, NEURONS if recipe.neurons is None else recipe.neurons
