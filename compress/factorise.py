"""Linear maps in two factors of low rank, so that little is lost on the inputs that they really get.

The factors B A of a map W minimise ||(W - B A) C^(1/2)||_F, where C = E[x x^T] of its inputs (Hsu et al. 2022 weight
rows, Wang et al. 2024, "SVD-LLM", eq. 2, use this C). With the singular value decomposition W C^(1/2) = U S V^T and its
first r directions U_r, the best B A C^(1/2) of rank r is U_r U_r^T W C^(1/2), so that B = U_r and A = U_r^T W: nothing
has to be inverted, and what is lost is the sum of the other S^2. U are the principal components of the map's outputs
(Chen et al. 2021, "DRONE").
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from compress.ranks import ROUND, by_energy, by_parameters, shape_of
from distill.batches import Batch
from distill.encoder_decoders import architecture
from distill.errors import RecipeError
from distill.layers import ARCHITECTURES, LayerNames, model_config, stack
from distill.losses import UNLABELLED
from distill.low_rank import LowRank, record_ranks, replace_map, whole

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "use_cache")
RIDGE = 1e-6
"""Share of the mean energy."""
PARTS = ("attention_output", "up", "down")
"""What is put in factors. Queries, keys and values are one product in a graph, which factors would take apart."""


@dataclass(frozen=True)
class Directions:
    """A map's directions of output `left` `(out, k)`, and how much each carries `energies` `(k,)`, the most first."""

    left: torch.Tensor
    energies: torch.Tensor


@dataclass(frozen=True)
class Factorised:
    """A model in which some maps have two factors, the rank of each of these, and what is left of all that could.

    `parameters` is the share of the maps' weights that is left, `energy` what they keep of their outputs, on average.
    """

    model: nn.Module
    ranks: Mapping[str, int]
    parameters: float
    energy: float


def factorise(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    energy: float | None = None,
    parameters: float | None = None,
    weighting: Literal["none", "inputs"] = "inputs",
    multiple: int = ROUND,
) -> Factorised:
    """A copy of `model` with low ranks, which its config records; give `energy` or `parameters`, both below 1.

    `batches` are of rows as the model gets them; for `weighting` "none" they are not read. Factors that were there are
    multiplied out first.

    Raises:
        CheckpointError: the architecture has no description.
        RecipeError: no rank saves anything, or `parameters` is less than the lowest ranks need.
    """
    made = copy.deepcopy(whole(model)).eval()
    maps = candidates(made)
    found = moments(made, maps, batches) if weighting == "inputs" else {}
    known = {path: directions(each, found.get(path)) for path, each in maps.items()}
    energies, shapes = [each.energies for each in known.values()], [shape_of(each) for each in maps.values()]
    if parameters is not None:
        chosen = by_parameters(energies, shapes, parameters, multiple)
    else:
        assert energy is not None
        chosen = by_energy(energies, shapes, energy, multiple)
    ranks = {path: rank for path, rank in zip(maps, chosen, strict=True) if rank is not None}
    if not ranks:
        raise RecipeError("factorise: no rank saves anything; ask for less energy or fewer parameters")
    for path, rank in ranks.items():
        replace_map(made, path, factors(maps[path], known[path], rank))
    record_ranks(made)
    left = sum(shape.parameters if r is None else r * shape.per_rank for r, shape in zip(chosen, shapes, strict=True))
    kept = [1.0 if r is None else float(e[:r].sum() / e.sum()) for r, e in zip(chosen, energies, strict=True)]
    return Factorised(made, ranks, left / sum(each.parameters for each in shapes), sum(kept) / len(kept))


def candidates(model: nn.Module) -> dict[str, nn.Linear]:
    """The maps of a model's layers that may be put in factors, by their path.

    Raises:
        CheckpointError: the architecture has no description.
    """
    names = ARCHITECTURES.get(model_config(model).model_type)
    paths = _of_translator(model) if names is None else _of_classifier(model, names)
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


def moments(model: nn.Module, maps: Mapping[str, nn.Linear], batches: Iterable[Batch]) -> dict[str, torch.Tensor]:
    """For each map the sum of x x^T over its inputs, or of y y^T over its outputs W x, whichever is smaller.

    Padding does not count: sources have an `attention_mask`, and the `labels` of targets say where these end.
    """
    model.eval()
    sums = {path: torch.zeros([min(each.weight.shape)] * 2) for path, each in maps.items()}
    for batch in batches:
        hooks = {path: _adding(total, _there(path, batch)) for path, total in sums.items()}
        handles = [maps[path].register_forward_hook(hook) for path, hook in hooks.items()]
        try:
            with torch.no_grad():
                model(**{key: value for key, value in batch.items() if key in INPUTS})
        finally:
            for handle in handles:
                handle.remove()
    return sums


def _there(path: str, batch: Batch) -> torch.Tensor:
    """Which positions `(batch, length)` of what a map reads are no padding."""
    if "decoder" in path.split("."):
        return cast(torch.Tensor, batch["labels"] != UNLABELLED)
    return cast(torch.Tensor, batch["attention_mask"] != 0)


def _adding(
    total: torch.Tensor, there: torch.Tensor
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    """A hook that adds up the second moments of a map's narrower side."""

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        linear = cast(nn.Linear, module)
        narrow = inputs[0] if _reads_less(linear) else output if linear.bias is None else output - linear.bias
        rows = narrow[there].float()
        total.addmm_(rows.T, rows)

    return hook


def _reads_less(linear: nn.Linear) -> bool:
    """Whether a map has no more inputs than outputs."""
    return linear.in_features <= linear.out_features


def directions(linear: nn.Linear, moment: torch.Tensor | None = None) -> Directions:
    """The directions of a map's outputs, weighted by what `moments` found; without it those of its matrix alone."""
    weight = linear.weight.detach().double()
    spread = weight
    if moment is not None:
        spread = weight @ _root(moment) if _reads_less(linear) else _root(moment)
    left, values, _ = torch.linalg.svd(spread, full_matrices=False)
    return Directions(left, values.square())


def _root(moment: torch.Tensor) -> torch.Tensor:
    """A matrix R with R R^T = `moment`, to which a little is added for directions that were never seen."""
    values, vectors = torch.linalg.eigh(moment.double())
    return cast(torch.Tensor, vectors * (values.clamp(min=0) + RIDGE * values.mean()).sqrt())


def factors(linear: nn.Linear, found: Directions, rank: int) -> LowRank:
    """A map in two factors of this rank."""
    made = LowRank(linear.in_features, linear.out_features, rank, linear.bias is not None).to(linear.weight.dtype)
    left = found.left[:, :rank]
    with torch.no_grad():
        made.first.weight.copy_(left.T @ linear.weight.detach().double())
        made.second.weight.copy_(left)
        if linear.bias is not None:
            made.second.bias.copy_(linear.bias)
    return made.train(linear.training)
