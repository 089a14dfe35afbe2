"""The residual stream of a model: what reads its channels, what writes them, and how it is made narrower.

All layers add to one stream of `hidden_size` (`d_model`) channels. Embedding tables and the last map of attention and
feed-forward write it, the first maps read it, and norms stand in between; an encoder-decoder's two streams are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from distill import encoder_decoders, encoders
from distill.encoder_decoders import part
from distill.errors import CheckpointError
from distill.layers import Layer, layers, model_config


@dataclass(frozen=True)
class Stream:
    """The modules that have a row, column or number for each channel; those that share a weight are all there."""

    tables: tuple[nn.Module, ...]
    norms: tuple[nn.Module, ...]
    readers: tuple[nn.Linear, ...]
    writers: tuple[nn.Linear, ...]

    @property
    def width(self) -> int:
        """How many channels are there now."""
        return self.readers[0].in_features

    @property
    def parts(self) -> Iterator[tuple[nn.Module, int]]:
        """Every module with the axis of its weights that is the channels'; a bias has it where that is the first."""
        for axis, modules in ((1, self.tables), (0, self.norms), (1, self.readers), (0, self.writers)):
            yield from ((module, axis) for module in modules)

    def keep(self, channels: Sequence[int]) -> None:
        """Keep only these channels, in this order; weights that are shared stay shared.

        Norms are over these channels alone. Scales that follow from the old width stay as they are.

        Raises:
            CheckpointError: a map is in two factors.
        """
        if not all(isinstance(each, nn.Linear) for each in (*self.readers, *self.writers)):
            raise CheckpointError("layers whose maps are in two factors cannot be made narrower: prune, then factorise")
        chosen, made = torch.tensor(channels), dict[torch.Tensor, torch.Tensor]()
        for module, axis in {id(module): (module, axis) for module, axis in self.parts}.values():
            _slice(module, axis, chosen, made)
        for table in (each for each in self.tables if isinstance(each, nn.Embedding)):
            table.embedding_dim = len(channels)
        for norm in (each for each in self.norms if isinstance(each, nn.LayerNorm)):
            norm.normalized_shape = (len(channels),)
        for reader in self.readers:
            reader.in_features = len(channels)
        for writer in self.writers:
            writer.out_features = len(channels)


def _slice(module: nn.Module, axis: int, chosen: torch.Tensor, made: dict[torch.Tensor, torch.Tensor]) -> None:
    """Keep the chosen entries along an axis of a module's weights; `made` holds what was cut before, and to what."""
    for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if value.dim() <= axis:  # a reader's bias
            continue
        if value not in made:
            cut = value.detach().index_select(axis, chosen.to(value.device))
            learned = isinstance(value, nn.Parameter)
            made[value] = nn.Parameter(cut, requires_grad=value.requires_grad) if learned else cut
        setattr(module, name, made[value])


def stream(model: nn.Module) -> Stream:
    """The residual stream of a model.

    Raises:
        CheckpointError: the architecture has no description yet.
    """
    found, config = layers(model), model_config(model)
    units = [units for layer in found for units in layer.units.values()]
    readers = tuple(linear for each in units for linear in each.into)
    writers = tuple(each.out for each in units)
    if config.model_type in encoders.ARCHITECTURES:
        return _of_encoder(model, encoders.ARCHITECTURES[config.model_type], found, readers, writers)
    return _of_both(model, encoder_decoders.architecture(config), found, readers, writers)


Maps = tuple[nn.Linear, ...]


def _of_encoder(
    model: nn.Module, names: encoders.Architecture, found: Sequence[Layer], readers: Maps, writers: Maps
) -> Stream:
    """An encoder's stream: it begins with the embeddings, or with the map that widens these."""
    norms = [
        part(layer.module, path) for layer in found for path in (names.layer.attention_norm, names.layer.feed_norm)
    ]
    readers = (*readers, part(model, names.dense))
    above, _, name = names.projection.rpartition(".")
    if name and hasattr(part(model, above), name):
        return Stream((), tuple(norms), readers, (*writers, part(model, names.projection)))
    embeddings = list(part(model, names.embeddings).children())
    tables = [module for module in embeddings if isinstance(module, nn.Embedding)]
    norms += [module for module in embeddings if isinstance(module, nn.LayerNorm)]
    return Stream(tuple(tables), tuple(norms), readers, writers)


def _of_both(
    model: nn.Module, names: encoder_decoders.Architecture, found: Sequence[Layer], readers: Maps, writers: Maps
) -> Stream:
    """The streams of an encoder-decoder, between its embedding tables and the output matrix."""
    sides = {False: names.sides[0], True: names.sides[1]}
    norms: list[nn.Module] = []
    for layer in found:
        side = sides[layer.cross_heads is not None]
        paths = (side.attention_norm, side.cross_norm, side.feed_norm)
        norms += [part(layer.module, path) for path in paths if path]
    tables = _there(part(model, names.encoder.rpartition(".")[0]), "shared")
    for which in (names.encoder, names.decoder):
        stack = part(model, which)
        norms += _there(stack, "layernorm_embedding", names.last_norm)
        tables += _there(stack, "embed_tokens", "embed_positions")
    return Stream(tuple(tables), tuple(norms), (*readers, part(model, "lm_head")), writers)


def _there(module: nn.Module, *names: str) -> list[nn.Module]:
    """The parts that a module has of these."""
    return [getattr(module, name) for name in names if getattr(module, name, None) is not None]
