"""Whole layers removed: those that matter least, or those that are not named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_importance import batches, pairs, row_loss, word_losses
from tiny_models import KINDS, answer, tiny_batch, tiny_model
from translation_models import MODELS, tiny_translator

from compress.pruning.fewer_layers import fewer_layers
from compress.pruning.importance import layer_importance
from compress.pruning.prune import prune
from distill.errors import RecipeError
from distill.layers import layers
from distill.recipe import PruneRecipe


def recipe(**keys: Any) -> PruneRecipe:
    return PruneRecipe(heads=0.0, neurons=0.5, **keys)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_that_is_missed_least_goes(kind: str) -> None:
    model = tiny_model(kind)
    losses = layer_importance(model, batches(), row_loss, [])
    smaller, kept = fewer_layers(model, recipe(layers=3), batches(), row_loss)
    smaller.eval()
    assert kept == [number for number in range(4) if losses[number] != min(losses)]
    assert len(layers(smaller)) == 3
    with torch.no_grad():
        assert row_loss(smaller, batches()[0]).mean().item() == pytest.approx(min(losses), rel=1e-5)


def test_named_layers_stay() -> None:
    model = tiny_model("bert")
    smaller, kept = fewer_layers(model, recipe(layers=(0, 2)), batches(), row_loss)
    assert kept == [0, 2]
    wanted = layers(model)[2].linear("up").weight
    assert torch.equal(layers(smaller)[1].linear("up").weight, wanted)


def test_all_layers_stay_where_none_are_asked_for() -> None:
    model = tiny_model("bert")
    same, kept = fewer_layers(model, recipe(), batches(), row_loss)
    assert same is model and kept == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", MODELS)
def test_encoders_and_decoders_lose_their_own(kind: str) -> None:
    model, batch = tiny_translator(kind), pairs()
    smaller, kept = fewer_layers(model, recipe(encoder_layers=2, decoder_layers=(1,)), [batch], word_losses)
    assert len(kept) == 3 and kept[-1] == 4 and set(kept[:2]) < {0, 1, 2}
    assert [layer.cross_heads is None for layer in layers(smaller)] == [True, True, False]
    with torch.no_grad():
        assert torch.isfinite(word_losses(smaller, batch)).all()


def test_a_pruned_model_keeps_the_sizes_of_its_layers() -> None:
    model = tiny_model("bert")
    found = [{"heads": torch.arange(4.0), "neurons": torch.arange(24.0)} for _ in range(4)]
    found[1]["heads"] *= torch.tensor([0.0, 0.0, 0.0, 1.0])
    prune(model, found, 0.25, 0.0)
    sizes = [layer.size for layer in layers(model)]
    smaller, _ = fewer_layers(model, recipe(layers=(1, 3)), batches(), row_loss)
    assert [layer.size for layer in layers(smaller)] == [sizes[1], sizes[3]]
    assert answer(smaller, tiny_batch()).shape == (3, 3)


def test_a_pruned_translation_model_keeps_them_too() -> None:
    model = tiny_translator("marian")
    for number, layer in enumerate(layers(model)):
        layer.keep({"neurons": range(5 + number)})
    from distill.layer_sizes import record_sizes

    record_sizes(model)
    smaller, _ = fewer_layers(model, recipe(encoder_layers=(0, 2), decoder_layers=(1,)), [pairs()], word_losses)
    assert [layer.size.neurons for layer in layers(smaller)] == [5, 7, 9]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"layers": 5}, "prune.layers: the model has 4 layers, 5 cannot stay"),
        ({"layers": (0, 4)}, "prune.layers: expected different numbers from 0 to 3, found .0, 4."),
        ({"layers": (1, 1)}, "prune.layers: expected different numbers"),
    ],
)
def test_layers_that_are_not_there(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        fewer_layers(tiny_model("bert"), recipe(**keys), batches(), row_loss)
