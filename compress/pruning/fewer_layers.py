"""Whole layers removed: those without which the loss rises least, one after the other, or those that are not named."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from compress.pruning.importance import layer_importance
from distill.batches import Batch, RowLoss
from distill.encoder_decoders import ARCHITECTURES
from distill.errors import RecipeError
from distill.layers import layers, model_config
from distill.models import copied
from distill.recipe import PruneRecipe, StudentRecipe
from distill.seq2seq_student import copied_seq2seq

Wanted = int | Sequence[int] | None
"""How many layers stay, or which ones."""


def fewer_layers(
    model: nn.Module, recipe: PruneRecipe, batches: Sequence[Batch], loss: RowLoss
) -> tuple[nn.Module, list[int]]:
    """A model with fewer layers, or the same one; and the numbers of the layers that are left, a decoder's behind.

    Raises:
        RecipeError: layers that the model does not have.
    """
    total = len(layers(model))
    if model_config(model).model_type not in ARCHITECTURES:
        kept = _stay(model, "layers", recipe.layers, range(total), batches, loss)
        return (model if len(kept) == total else copied(model, StudentRecipe(layers=tuple(kept)))), kept
    first = sum(layer.cross_heads is None for layer in layers(model))
    encoder = _stay(model, "encoder_layers", recipe.encoder_layers, range(first), batches, loss)
    decoder = _stay(model, "decoder_layers", recipe.decoder_layers, range(first, total), batches, loss)
    if len(encoder) + len(decoder) == total:
        return model, [*encoder, *decoder]
    return copied_seq2seq(model, encoder, [number - first for number in decoder]), [*encoder, *decoder]


def _stay(
    model: nn.Module, key: str, wanted: Wanted, places: range, batches: Sequence[Batch], loss: RowLoss
) -> list[int]:
    """The numbers of a stack's layers that stay, among all layers."""
    _expect_there(key, wanted, len(places))
    if wanted is None:
        return list(places)
    if not isinstance(wanted, int):
        return [places[number] for number in wanted]
    gone: list[int] = []
    while len(places) - len(gone) > wanted:
        losses = layer_importance(model, batches, loss, gone)
        gone.append(min(set(places) - set(gone), key=lambda number: losses[number]))
    return [number for number in places if number not in gone]


def _expect_there(key: str, wanted: Wanted, total: int) -> None:
    """Refuse layers that are not there, and to add some.

    Raises:
        RecipeError: saying what was expected.
    """
    if isinstance(wanted, int) and wanted > total:
        raise RecipeError(f"prune.{key}: the model has {total} layers, {wanted} cannot stay")
    if not isinstance(wanted, int | None) and (
        len(set(wanted)) < len(wanted) or not all(0 <= number < total for number in wanted)
    ):
        raise RecipeError(f"prune.{key}: expected different numbers from 0 to {total - 1}, found {list(wanted)}")
