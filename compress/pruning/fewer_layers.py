"""Whole layers removed: evenly spaced ones stay, or those that are named.

Those without which the loss rises most, measured by leaving out one after the other, were the last ones, and after
recovery worse than evenly spaced ones.
"""

from __future__ import annotations

from torch import nn

from distill.encoder_decoders import ARCHITECTURES
from distill.errors import RecipeError
from distill.layers import layers, model_config
from distill.models import chosen_layers, copied
from distill.recipe import PruneRecipe, StudentRecipe
from distill.recipe_learning import CopiedLayers
from distill.seq2seq_student import copied_seq2seq


def fewer_layers(model: nn.Module, recipe: PruneRecipe) -> tuple[nn.Module, list[int]]:
    """A model with fewer layers, or the same one; and the numbers of the layers that are left, a decoder's behind.

    Raises:
        RecipeError: naming everything that this model does not have, or cannot lose.
    """
    stacks = _stacks(model, recipe)
    _expect_possible(model, recipe, stacks)
    kept = [_stay(key, wanted, places) for key, (wanted, places) in stacks.items()]
    found = [places[number] for (_, places), stack in zip(stacks.values(), kept, strict=True) for number in stack]
    if found == list(range(len(layers(model)))):
        return model, found
    if len(kept) == 1:
        return copied(model, StudentRecipe(layers=tuple(found))), found
    return copied_seq2seq(model, *kept), found


def _stacks(model: nn.Module, recipe: PruneRecipe) -> dict[str, tuple[CopiedLayers | None, range]]:
    """The recipe's value for each stack of layers, by its key, and the numbers that the stack has among all layers."""
    found = layers(model)
    if model_config(model).model_type not in ARCHITECTURES:
        return {"layers": (recipe.layers, range(len(found)))}
    first = sum(layer.cross_heads is None for layer in found)
    return {
        "encoder_layers": (recipe.encoder_layers, range(first)),
        "decoder_layers": (recipe.decoder_layers, range(first, len(found))),
    }


def _stay(key: str, wanted: CopiedLayers | None, places: range) -> list[int]:
    """The layers of a stack that stay, counted from its first; a single one of a decoder is its last."""
    if wanted == 1 and key == "decoder_layers":
        return [len(places) - 1]
    return chosen_layers(len(places) if wanted is None else wanted, len(places))


def _expect_possible(
    model: nn.Module, recipe: PruneRecipe, stacks: dict[str, tuple[CopiedLayers | None, range]]
) -> None:
    """Look at what a recipe wants removed before any of it is.

    Raises:
        RecipeError: naming everything that this model does not have, or cannot lose.
    """
    problems = [each for key, (wanted, places) in stacks.items() for each in _missing(key, wanted, len(places))]
    if recipe.heads != 0 and not recipe.size_targets:
        held = {layer.units["heads"].held_by for layer in layers(model)} - {""}
        problems += [f"prune.heads: expected 0, for {reason}" for reason in sorted(held)]
    if problems:
        raise RecipeError("the model cannot be pruned like this", problems)


def _missing(key: str, wanted: CopiedLayers | None, total: int) -> list[str]:
    """Why these layers cannot stay."""
    if isinstance(wanted, int):
        return [f"prune.{key}: there are {total} layers, {wanted} cannot stay"] if wanted > total else []
    if wanted is None or (len(set(wanted)) == len(wanted) and all(number < total for number in wanted)):
        return []
    return [f"prune.{key}: expected different numbers from 0 to {total - 1}, found {list(wanted)}"]
