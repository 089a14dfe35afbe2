"""What quantizing did to a graph: how many matrix products have smaller weights, and where the bytes are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx

from export.graphs.products import product_weights, stored_bytes

Places = tuple[tuple[str, tuple[str, ...]], ...]

PLACES: Places = (
    ("word embedding", ("embedding.table", "word_embeddings.")),
    ("encoder layers", ("encoder.", "transformer.layer.")),
    ("head", ("classifier.", "pooler.", "head.")),
)
TRANSLATION_PLACES: Places = (
    ("word embedding", ("embedding.table",)),
    ("encoder layers", ("encoder.",)),
    ("decoder layers", ("decoder.",)),
)


@dataclass(frozen=True)
class Products:
    """Products of activations with a stored weight, and how many of these weights are smaller than float32."""

    quantized: int
    total: int

    def __str__(self) -> str:
        """In one line."""
        return f"{self.quantized} of {self.total} products quantized"


def count_products(graph: onnx.GraphProto) -> Products:
    """Count the stored weights that products read; products of two activations (attention) do not count."""
    kinds = [weight.kind for weight in product_weights(graph).values()]
    return Products(sum(kind != onnx.TensorProto.FLOAT for kind in kinds), len(kinds))


def bytes_by_part(graph: onnx.GraphProto, places: Places = PLACES) -> dict[str, int]:
    """Bytes of the stored weights, by the part of the model that they belong to."""
    sizes: Counter[str] = Counter()
    for value in graph.initializer:
        sizes[_part(value.name, places)] += stored_bytes(value)
    return {part: sizes[part] for part in (*(name for name, _ in places), "rest")}


def _part(name: str, places: Places) -> str:
    """Which part a weight belongs to, after its name."""
    return next((part for part, hints in places if any(hint in name for hint in hints)), "rest")
