"""Muon in several processes: each makes a part of the matrices orthogonal, and all get all.

The products behind that are a fifth to a quarter of a small model's step. Momentum stays whole in every process: any of
them can save it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pytorch_optimizer import Muon
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_gram_newton_schulz, zero_power_via_newton_schulz_5
from torch import distributed

from distill import processes
from distill.number_types import capabilities, fastest

Iterations = Callable[[torch.Tensor], torch.Tensor]


class SharedMuon(Muon):
    """pytorch_optimizer's Muon with that work divided, in the numbers that this processor multiplies fast."""

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[torch.Tensor]) -> list[torch.Tensor]:
        del group  # its iterations are the library's usual ones
        count = processes.count()
        iterate = iterations(torch.float16 if updates[0].is_cuda else fastest(capabilities()))
        if count == 1:
            return [iterate(update) for update in updates]
        own = updates[processes.place() :: count] or updates[:1]  # who has none still has to know the type
        made = [iterate(update) for update in own]
        mine = made[0].new_zeros(-(-len(updates) // count), updates[0].numel())
        for row, update in zip(mine, made, strict=False):
            row.copy_(update.reshape(-1))
        parts = [torch.empty_like(mine) for _ in range(count)]
        distributed.all_gather(parts, mine)
        return [parts[place % count][place // count].view_as(update) for place, update in enumerate(updates)]


def iterations(dtype: torch.dtype) -> Iterations:
    """Newton-Schulz iterations in `dtype`: the "gram" form has fewer products and needs more digits than bfloat16's."""
    form = zero_power_via_newton_schulz_5 if dtype == torch.bfloat16 else zero_power_via_gram_newton_schulz
    return partial(form, dtype=dtype)
