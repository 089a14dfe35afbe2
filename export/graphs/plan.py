"""What a model computes, apart from its weights: enough to build its graph, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from distill.errors import BundleError

PLAN = "potstill.plan"
LOWEST = float(np.finfo(np.float32).min)

Weights = Mapping[str, NDArray[Any]]


def width_in(weights: Weights, name: str) -> int:
    """How many inputs the map `name` has, whole or in two factors."""
    first = f"{name}.first.weight"
    return int(weights[first if first in weights else f"{name}.weight"].shape[0])


@dataclass(frozen=True)
class Plan:
    """How the layers of a model hang together.

    Heads are given for each layer; all other sizes are read off the weights. Tables name the embedding matrices
    `(vocabulary, width)`, which are one and the same where the model ties them. `reach` is the distance from which on
    relative positions are all alike (0: positions are not relative). A classifier has no decoder, and a head whose
    first product is followed by `head_activation`; where it has a `padding_id`, its positions count all other tokens,
    and 0 is that of padding.
    """

    encoder_heads: tuple[int, ...]
    decoder_heads: tuple[int, ...]
    cross_heads: tuple[int, ...]
    norm_first: bool
    root_norm: bool
    epsilon: float
    activation: str
    gated: bool
    embedding_scale: float
    reach: int
    encoder_table: str
    decoder_table: str
    output_table: str
    head_activation: str = ""
    padding_id: int | None = None

    def to_json(self) -> str:
        """The plan as one line of JSON."""
        return json.dumps(asdict(self))


def has_plan(model: onnx.ModelProto) -> bool:
    """Whether a graph was written from a plan, and can be written anew."""
    return any(entry.key == PLAN for entry in model.metadata_props)


def read_plan(model: onnx.ModelProto) -> tuple[Plan, dict[str, NDArray[Any]]]:
    """The plan that `build` left in a graph, and the graph's weights.

    Raises:
        BundleError: there is none.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == PLAN), None)
    if text is None:
        raise BundleError("this graph has no plan of its layers: expected one that potstill built from weights")
    try:
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()
        }
        plan = Plan(**fields)
    except (AttributeError, TypeError, ValueError) as error:
        raise BundleError(f"this graph has a plan of its layers that cannot be read: {error}") from error
    return plan, {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
