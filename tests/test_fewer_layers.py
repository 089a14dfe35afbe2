"""Whole layers removed: evenly spaced ones stay, or those that are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_importance import pairs, word_losses
from tiny_models import KINDS, answer, tiny_batch, tiny_model
from translation_models import MODELS, tiny_translator

from compress.pruning.fewer_layers import fewer_layers
from compress.pruning.prune import prune
from distill.errors import RecipeError
from distill.layers import layers
from distill.recipe import PruneRecipe


def recipe(**keys: Any) -> PruneRecipe:
    return PruneRecipe(heads=0.0, neurons=0.5, **keys)


@pytest.mark.parametrize("kind", KINDS)
def test_evenly_spaced_layers_stay(kind: str) -> None:
    model = tiny_model(kind)
    smaller, kept = fewer_layers(model, recipe(layers=2))
    assert kept == [0, 3]
    for new, old in zip(layers(smaller), kept, strict=True):
        wanted = layers(model)[old].module.state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in new.module.state_dict().items())


def test_named_layers_stay() -> None:
    model = tiny_model("bert")
    smaller, kept = fewer_layers(model, recipe(layers=(0, 2)))
    assert kept == [0, 2]
    wanted = layers(model)[2].linear("up").weight
    assert torch.equal(layers(smaller)[1].linear("up").weight, wanted)


def test_all_layers_stay_where_none_are_asked_for() -> None:
    model = tiny_model("bert")
    same, kept = fewer_layers(model, recipe())
    assert same is model and kept == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", MODELS)
def test_encoders_and_decoders_lose_their_own(kind: str) -> None:
    model, batch = tiny_translator(kind), pairs()
    smaller, kept = fewer_layers(model, recipe(encoder_layers=2, decoder_layers=(1,)))
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
    smaller, _ = fewer_layers(model, recipe(layers=(1, 3)))
    assert [layer.size for layer in layers(smaller)] == [sizes[1], sizes[3]]
    assert answer(smaller, tiny_batch()).shape == (3, 3)


def test_a_pruned_translation_model_keeps_them_too() -> None:
    model = tiny_translator("marian")
    for number, layer in enumerate(layers(model)):
        layer.keep({"neurons": range(5 + number)})
    from distill.layer_sizes import record_sizes

    record_sizes(model)
    smaller, _ = fewer_layers(model, recipe(encoder_layers=(0, 2), decoder_layers=(1,)))
    assert [layer.size.neurons for layer in layers(smaller)] == [5, 7, 9]


@pytest.mark.parametrize(
    ("kind", "keys", "problems"),
    [
        ("bert", {"layers": 5}, ["prune.layers: there are 4 layers, 5 cannot stay"]),
        ("bert", {"layers": (0, 4)}, ["prune.layers: expected different numbers from 0 to 3, found [0, 4]"]),
        ("bert", {"layers": (1, 1)}, ["prune.layers: expected different numbers from 0 to 3, found [1, 1]"]),
        (
            "t5",
            {"encoder_layers": 4, "decoder_layers": (2,), "heads": 0.5},
            [
                "prune.encoder_layers: there are 3 layers, 4 cannot stay",
                "prune.decoder_layers: expected different numbers from 0 to 1, found [2]",
                "prune.heads: expected 0, for all layers share one table of relative positions, a column a head",
            ],
        ),
    ],
)
def test_row_52_everything_that_cannot_go_is_named_at_once(
    kind: str, keys: dict[str, Any], problems: list[str]
) -> None:
    model = tiny_translator(kind) if kind == "t5" else tiny_model(kind)
    with pytest.raises(RecipeError) as caught:
        fewer_layers(model, PruneRecipe(**{"heads": 0.0, "neurons": 0.5, **keys}))
    assert list(caught.value.problems) == problems


@pytest.mark.parametrize("keys", [{"parameters": 0.5}, {"heads": 0.0, "neurons": 0.5}])
def test_heads_that_are_held_are_no_problem_where_nobody_asks_for_them(keys: dict[str, Any]) -> None:
    fewer_layers(tiny_translator("t5"), PruneRecipe(**keys))
