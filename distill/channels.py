"""The channels of the residual stream in a model's config, so that a narrower model can be built again.

Which ones they are stands there, and not only how many: tables of positions that are computed have to be cut alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from distill.errors import CheckpointError
from distill.layers import model_config
from distill.stream import stream

CHANNELS_KEY = "potstill_channels"


def keep_channels(model: nn.Module, chosen: Sequence[int]) -> None:
    """Keep only these channels of the residual stream, in rising order, and write into the config which they are.

    Sizes that the config had before stay there: those of the model as it is built.

    Raises:
        CheckpointError: a map is in two factors, or the architecture has no description.
    """
    config, found = model_config(model), stream(model)
    before = getattr(config, CHANNELS_KEY, None) or range(found.width)
    found.keep(chosen)
    setattr(config, CHANNELS_KEY, [before[channel] for channel in chosen])


def apply_channels(model: nn.Module) -> None:
    """Make a fresh model as narrow as its config says; a config without channels changes nothing.

    Raises:
        CheckpointError: the channels do not fit the model.
    """
    channels = getattr(model_config(model), CHANNELS_KEY, None)
    if channels is None:
        return
    found = stream(model)
    if not _fits(channels, found.width):
        raise CheckpointError(
            f"{CHANNELS_KEY}: expected different numbers from 0 to {found.width - 1} in rising order, "
            f"found {channels!r:.60}"
        )
    found.keep(channels)


def _fits(channels: object, width: int) -> bool:
    """Whether these are channels of a stream."""
    if not isinstance(channels, list) or not channels or any(type(each) is not int for each in channels):
        return False
    rising = all(one < other for one, other in itertools.pairwise(channels))
    return rising and channels[0] >= 0 and channels[-1] < width
