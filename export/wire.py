"""What an .onnx file points at outside itself, read off its protobuf bytes without the onnx package.

Wire format: https://protobuf.dev/programming-guides/encoding/ ; field numbers: onnx/onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Which fields of a message hold messages that can hold a tensor, however deep.
CHILDREN = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function"},
        "training": {1: "graph", 2: "graph"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "function": {7: "node", 11: "attribute"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {},
    }
)
TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION, OP_TYPE = 8, 13, 14, 4

Field = tuple[int, int, int, int]  # number, wire type, start and end of the payload


def outside_references(model: bytes) -> list[str]:
    """Everything in `model` that names another file: external tensors and compiled-context nodes.

    Raises:
        ValueError: `model` is not protobuf.
    """
    found = []
    waiting = [("model", 0, len(model))]  # a stack of our own: nesting in the file cannot exhaust Python's
    while waiting:
        kind, start, end = waiting.pop()
        fields = list(_fields(model, start, end))
        children = CHILDREN[kind]
        waiting += [(children[f[0]], f[2], f[3]) for f in fields if f[1] == BYTES and f[0] in children]
        if kind == "tensor" and any(_is_external(model, field) for field in fields):
            found.append(f"tensor {_text(model, fields, TENSOR_NAME)!r} keeps its data in another file")
        if kind == "node" and _text(model, fields, OP_TYPE) == "EPContext":
            found.append("an EPContext node refers to a compiled file")
    return found


def _is_external(model: bytes, field: Field) -> bool:
    """Whether this field of a tensor says that its data lies elsewhere."""
    number, wire, start, _ = field
    return number == EXTERNAL_DATA or (number == DATA_LOCATION and wire == VARINT and _varint(model, start)[0] != 0)


def _text(model: bytes, fields: list[Field], number: int) -> str:
    """The text in the last field `number`, or an empty one."""
    spans = [(start, end) for found, wire, start, end in fields if found == number and wire == BYTES]
    start, end = spans[-1] if spans else (0, 0)
    return model[start:end].decode("utf-8", "replace")


def _fields(model: bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message at `start:end`, in file order."""
    while start < end:
        key, start = _varint(model, start)
        wire = key & 7
        payload, after = _payload(model, wire, start)
        if after > end:
            raise ValueError(f"a field at byte {start} ends outside its message")
        yield key >> 3, wire, payload, after
        start = after


def _payload(model: bytes, wire: int, start: int) -> tuple[int, int]:
    """Where a field's payload starts and ends."""
    if wire == BYTES:
        length, payload = _varint(model, start)
        return payload, payload + length
    if wire == VARINT:
        return start, _varint(model, start)[1]
    if wire in (FIXED64, FIXED32):
        return start, start + (8 if wire == FIXED64 else 4)
    raise ValueError(f"wire type {wire} at byte {start}")


def _varint(model: bytes, start: int) -> tuple[int, int]:
    """A variable-length number and where it ends; ten bytes at most."""
    value = 0
    for index in range(start, min(start + 10, len(model))):
        byte = model[index]
        value |= (byte & 127) << (7 * (index - start))
        if byte < 128:
            return value, index + 1
    raise ValueError(f"a number at byte {start} has no end")
