"""The parts of a layer that encoders and encoder-decoders have in common, in whatever operators they are given."""

from __future__ import annotations

from collections.abc import Callable

from export.graphs.operators import Standard

Layer = Callable[[str], str]


def residual(parts: Standard, states: str, norm: str, layer: Layer) -> str:
    """A layer with what goes around it: `x + layer(norm(x))`, or `norm(x + layer(x))`."""
    if parts.plan.norm_first:
        return parts.write.node("Add", states, layer(parts.norm(states, norm)))
    return parts.add_and_norm(states, layer(states), norm)


def feed(parts: Standard, stem: str) -> Layer:
    """The feed-forward of a layer, gated or not."""

    def forward(states: str) -> str:
        up = parts.product(states, f"{stem}.up")
        if not parts.plan.gated:
            return parts.product(parts.activation(up, parts.plan.activation), f"{stem}.down")
        gate, rest = parts.write.nodes_of("Split", up, outputs=2, axis=-1, num_outputs=2)
        return parts.product(
            parts.write.node("Mul", parts.activation(gate, parts.plan.activation), rest), f"{stem}.down"
        )

    return forward


def projected(parts: Standard, states: str, stem: str) -> list[str]:
    """Queries, keys and values of `states`, from one product."""
    merged = parts.product(states, f"{stem}.attention.qkv")
    return parts.write.nodes_of("Split", merged, outputs=3, axis=-1, num_outputs=3)


def source_attention(parts: Standard, layer: int, padding: str, bias: str) -> Layer:
    """Attention of the source to itself."""
    stem, heads = f"encoder.{layer}", parts.plan.encoder_heads[layer]

    def attend(states: str) -> str:
        found = parts.encoder_attention(projected(parts, states, stem), heads, padding, bias)
        return parts.product(found, f"{stem}.attention.out")

    return attend
