"""A model's linear maps in two factors of low rank: which maps, and with which rank."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from torch import nn

from compress.low_rank.factors import Directions, directions, factors
from compress.low_rank.observed import observe
from compress.low_rank.ranks import ROUND, by_energy, by_parameters, shape_of, shares
from distill.batches import Batch, RowLoss
from distill.encoder_decoders import architecture
from distill.encoders import ARCHITECTURES, LayerNames
from distill.errors import RecipeError
from distill.layers import model_config, stack
from distill.low_rank import record_ranks, replace_map, whole

PARTS = ("attention_output", "up", "down")
"""What is put in factors. Queries, keys and values are one product in a graph, which factors would take apart."""


Weighting = Literal["loss", "inputs", "none"]


@dataclass(frozen=True, eq=False)
class Factorised:
    """A model in which some maps have two factors, the rank of each of these, and what is left of all that could.

    `parameters` is the share of the maps' weights that is left, `energy` what they keep of theirs, on average.
    """

    model: nn.Module
    ranks: Mapping[str, int]
    parameters: float
    energy: float


def factorise(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: RowLoss,
    *,
    energy: float | None = None,
    parameters: float | None = None,
    weighting: Weighting = "loss",
    multiple: int = ROUND,
) -> Factorised:
    """A copy of `model` with low ranks, which its config records; give `energy` or `parameters`, both below 1.

    `batches` are of rows as the model gets them, and `loss` is that of each of them; for `weighting` "inputs" it is not
    asked, for "none" nothing is read. Factors that were there are multiplied out first.

    Raises:
        CheckpointError: the architecture has no description.
        RecipeError: no rank saves anything, or `parameters` is less than the lowest ranks need.
    """
    made = copy.deepcopy(whole(model)).eval()
    maps = candidates(made)
    seen = observe(made, maps, batches, loss if weighting == "loss" else None) if weighting != "none" else {}
    known = {path: directions(each, seen.get(path)) for path, each in maps.items()}
    chosen = _ranks(maps, known, energy, parameters, weighting, multiple)
    ranks = {path: rank for path, rank in chosen.items() if rank is not None}
    if not ranks:
        raise RecipeError("factorise: no rank saves anything; ask for less energy or fewer parameters")
    for path, rank in ranks.items():
        replace_map(made, path, factors(maps[path], known[path], rank))
    record_ranks(made)
    return Factorised(made, ranks, _left(maps, ranks), _kept(known, ranks))


def _ranks(
    maps: Mapping[str, nn.Linear],
    known: Mapping[str, Directions],
    energy: float | None,
    parameters: float | None,
    weighting: Weighting,
    multiple: int,
) -> dict[str, int | None]:
    """Each map's rank; only what the loss weighs can be compared between maps, and else counts within its own."""
    energies, shapes = [known[path].energies for path in maps], [shape_of(each) for each in maps.values()]
    if parameters is None:
        assert energy is not None
        return dict(zip(maps, by_energy(energies, shapes, energy, multiple), strict=True))
    worths = energies if weighting == "loss" else [shares(each) for each in energies]
    return dict(zip(maps, by_parameters(worths, shapes, parameters, multiple), strict=True))


def _left(maps: Mapping[str, nn.Linear], ranks: Mapping[str, int]) -> float:
    """The share of the maps' weights that is left."""
    shapes = {path: shape_of(each) for path, each in maps.items()}
    gone = sum(shapes[path].parameters - rank * shapes[path].per_rank for path, rank in ranks.items())
    return 1 - gone / sum(each.parameters for each in shapes.values())


def _kept(known: Mapping[str, Directions], ranks: Mapping[str, int]) -> float:
    """The mean share of energy that maps keep."""
    kept = [float(shares(each.energies)[: ranks.get(path)].sum()) for path, each in known.items()]
    return sum(kept) / len(kept)


def candidates(model: nn.Module) -> dict[str, nn.Linear]:
    """The maps of a model's layers that may be put in factors, by their path.

    Raises:
        CheckpointError: the architecture has no description.
    """
    names = ARCHITECTURES.get(model_config(model).model_type)
    paths = _of_translator(model) if names is None else _of_classifier(model, names.layer)
    return {path: cast(nn.Linear, model.get_submodule(path)) for path in paths}


def _of_classifier(model: nn.Module, names: LayerNames) -> Iterator[str]:
    """The paths in an encoder's layers."""
    name, modules = stack(model)
    for number in range(len(modules)):
        yield from (f"{name}.{number}.{getattr(names, part)}" for part in PARTS)


def _of_translator(model: nn.Module) -> Iterator[str]:
    """The paths in an encoder-decoder's layers. Both halves of a gated feed-forward are one product, too."""
    names = architecture(model_config(model))
    for which, side in zip((names.encoder, names.decoder), names.sides, strict=True):
        maps = [f"{side.attention}.{names.projections[3]}"]
        maps += [f"{side.cross}.{names.projections[3]}"] if side.cross else []
        maps += [f"{side.feed}.{part}".lstrip(".") for part in (*names.up[: len(names.up) == 1], names.down)]
        stem = f"{which}.{names.layers}"
        for number in range(len(cast(nn.ModuleList, model.get_submodule(stem)))):
            yield from (f"{stem}.{number}.{path}" for path in maps)
