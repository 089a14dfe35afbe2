"""What each encoder-decoder calls its parts: what prunes, resizes or exports them reads this table.

Adding an architecture is adding a description here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from distill.errors import CheckpointError


@dataclass(frozen=True)
class Side:
    """Where a layer of one stack keeps its parts: paths of modules. `cross` is empty in an encoder."""

    attention: str
    attention_norm: str
    cross: str
    cross_norm: str
    feed: str
    feed_norm: str


@dataclass(frozen=True)
class Architecture:
    """Where a model keeps its parts, and what its layers do that weights do not tell.

    `up` holds one name, or two where the feed-forward is gated: the first goes through the activation.
    """

    encoder: str
    decoder: str
    layers: str
    sides: tuple[Side, Side]
    projections: tuple[str, str, str, str]
    heads: str
    up: tuple[str, ...]
    down: str
    norm_first: bool
    last_norm: str
    activation: str
    relative: bool = False


BART_ENCODER = Side("self_attn", "self_attn_layer_norm", "", "", "", "final_layer_norm")
BART_DECODER = Side(
    "self_attn", "self_attn_layer_norm", "encoder_attn", "encoder_attn_layer_norm", "", "final_layer_norm"
)
T5_ENCODER = Side("layer.0.SelfAttention", "layer.0.layer_norm", "", "", "layer.1.DenseReluDense", "layer.1.layer_norm")
T5_DECODER = Side(
    "layer.0.SelfAttention", "layer.0.layer_norm", "layer.1.EncDecAttention", "layer.1.layer_norm",
    "layer.2.DenseReluDense", "layer.2.layer_norm",
)  # fmt: skip


def _like_bart(norm_first: bool) -> Architecture:
    """Bart's names, which most of its successors kept."""
    return Architecture(
        "model.encoder", "model.decoder", "layers", (BART_ENCODER, BART_DECODER),
        ("q_proj", "k_proj", "v_proj", "out_proj"), "num_heads", ("fc1",), "fc2", norm_first, "layer_norm",
        "activation_function",
    )  # fmt: skip


def _like_t5(up: tuple[str, ...]) -> Architecture:
    """T5's names; later versions have a gated feed-forward."""
    return Architecture(
        "encoder", "decoder", "block", (T5_ENCODER, T5_DECODER), ("q", "k", "v", "o"), "n_heads", up, "wo", True,
        "final_layer_norm", "dense_act_fn", relative=True,
    )  # fmt: skip


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "marian": _like_bart(norm_first=False),
        "bart": _like_bart(norm_first=False),
        "mbart": _like_bart(norm_first=True),
        "m2m_100": _like_bart(norm_first=True),
        "t5": _like_t5(("wi",)),
        "mt5": _like_t5(("wi",)),
    }
)
GATED_T5 = _like_t5(("wi_0", "wi_1"))


def architecture(config: Any) -> Architecture:
    """The description of a model, after its config.

    Raises:
        CheckpointError: there is none.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise CheckpointError(f"architecture {kind!r}: supported are {', '.join(sorted(ARCHITECTURES))}")
    return GATED_T5 if kind in ("t5", "mt5") and config.is_gated_act else ARCHITECTURES[kind]


def part(module: nn.Module, path: str) -> Any:
    """A part of a module; the module itself for an empty path."""
    return module.get_submodule(path) if path else module
