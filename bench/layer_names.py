"""What layers are called, and which of them a stored tensor's name belongs to. Needs neither torch nor onnx."""

from __future__ import annotations

import re
from collections.abc import Mapping

EMBEDDING, MEMORY, HEAD, OUTPUT, REST = "embedding", "decoder.memory", "head", "output", "rest"
"""`decoder.memory` makes the keys and values of all of the decoder's layers from what was encoded, in one product."""
STACKS = ("encoder", "decoder")
NUMBERED = re.compile(r"^(encoder\.\d+|decoder\.\d+|decoder\.memory)\.")
TRACED = re.compile(r"(?:^|\.)layer\.(\d+)\.")
LAST_NORM = re.compile(r"^(encoder|decoder)\.norm\.")
PARTS = (
    (re.compile(r"^(?:source_(?:matrix|scale|bias)$|output\.|shortlist\.)"), OUTPUT),
    (re.compile(r"embedding|^(?:encoder|decoder)\.(?:positions|distances)"), EMBEDDING),
    (re.compile(r"(?:^|\.)(?:head|classifier|pre_classifier|pooler)\."), HEAD),
)
"""In this order: an untied output matrix is `output.embedding.table`."""


def layer_of(name: str, last: Mapping[str, str]) -> str | None:
    """The layer of a stored tensor; None: no layer that is known. `last` names the last layer of each stack."""
    if match := NUMBERED.search(name):
        return match[1]
    if match := TRACED.search(name):
        return f"encoder.{match[1]}"
    if match := LAST_NORM.search(name):
        return last.get(match[1])
    return next((layer for pattern, layer in PARTS if pattern.search(name)), None)


def order(layer: str) -> tuple[int, int]:
    """Layers as a text goes through them; the rest comes last."""
    places = (EMBEDDING, "encoder", MEMORY, "decoder", HEAD, OUTPUT, REST)
    part, _, number = layer.partition(".")
    return places.index(layer if layer in places else part), int(number) if number.isdigit() else 0
