"""Small ONNX files written byte by byte, for tests in the environment that has no onnx package."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

from distill.task import Task
from export.bundle import Bundle, read_bundle, seal

GOLDEN = Path(__file__).resolve().parent / "data" / "golden-bundle"
GOLDEN_INT8 = Path(__file__).resolve().parent / "data" / "golden-bundle-int8"
FLOAT, INT64, INT32 = 1, 7, 6
ROWS, LABELS = 200, 3  # the golden tokenizer has 200 entries

Field = tuple[int, int | bytes | str]


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def message(*fields: Field) -> bytes:
    """A protobuf message of (field number, value)."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            content = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(content)) + content)
    return b"".join(parts)


def tensor(name: str, dims: list[int], floats: list[float]) -> bytes:
    """A TensorProto of floats."""
    raw = struct.pack(f"<{len(floats)}f", *floats)
    return message(*[(1, size) for size in dims], (2, FLOAT), (8, name), (9, raw))


def external(name: str, location: str) -> bytes:
    """A TensorProto of four floats in another file."""
    return message((1, 4), (2, FLOAT), (8, name), (13, message((1, "location"), (2, location))), (14, 1))


def value_info(name: str, dtype: int, dims: list[int | str]) -> bytes:
    """An input or output: numbers are fixed sizes, words free ones."""
    sizes = [message((1, size)) if isinstance(size, int) else message((2, size)) for size in dims]
    shape = message(*[(1, size) for size in sizes])
    return message((1, name), (2, message((1, message((1, dtype), (2, shape))))))


def node(
    op: str, inputs: list[str], outputs: list[str], attributes: list[bytes] | None = None, domain: str = ""
) -> bytes:
    """A NodeProto."""
    named = [(1, name) for name in inputs] + [(2, name) for name in outputs]
    return message(*named, (4, op), *[(5, each) for each in attributes or []], (7, domain))


def model(
    *,
    opset: int = 20,
    ir: int = 10,
    inputs: dict[str, tuple[int, list[int | str]]] | None = None,
    output: tuple[str, int, list[int | str]] = ("logits", FLOAT, ["texts", LABELS]),
    op: str = "ReduceMean",
    domain: str = "",
    weights: list[float] | None = None,
    labels: int = LABELS,
    axis: int = 1,
    tensors: list[bytes] | None = None,
) -> bytes:
    """A model whose logits are the mean of its embedding rows; every part can be spoilt."""
    inputs = {"input_ids": (INT64, ["texts", "length"])} if inputs is None else inputs
    rows = [float((row * (label + 2)) % 7) for row in range(ROWS) for label in range(labels)]
    axes = message((1, 1), (2, INT64), (8, "axes"), (9, struct.pack("<q", axis)))
    keep = message((1, "keepdims"), (3, 0), (20, 2))
    graph = message(
        (1, node("Gather", ["rows", next(iter(inputs), "input_ids")], ["embedded"])),
        (1, node(op, ["embedded", "axes"], [output[0]], [keep] if op == "ReduceMean" else [], domain)),
        (2, "graph"),
        *[(5, each) for each in tensors or []],
        (5, tensor("rows", [ROWS, labels], weights or rows)),
        (5, axes),
        *[(11, value_info(name, *kind)) for name, kind in inputs.items()],
        (12, value_info(*output)),
    )
    domains = [(8, message((1, domain), (2, 1)))] if domain else []
    return message((1, ir), (7, graph), (8, message((1, ""), (2, opset))), *domains)


def copy_golden(folder: Path, source: Path = GOLDEN) -> Path:
    """A copy of a golden bundle to spoil."""
    shutil.copytree(source, folder / "bundle")
    return folder / "bundle"


def reseal(folder: Path, **changes: Any) -> Bundle:
    """Seal a changed bundle again, so that only the change itself can be found."""
    old = read_bundle(folder, verify=False)
    (folder / "bundle.json").unlink()
    fields = ("task", "precision", "model_file", "opset", "inputs", "outputs", "cpu", "details")
    return seal(folder, **{**{name: getattr(old, name) for name in fields}, **changes})


def bundle_of(folder: Path, content: bytes, **changes: Any) -> Bundle:
    """The golden bundle with another model in it."""
    copy = copy_golden(folder)
    (copy / "onnx" / "model.onnx").write_bytes(content)
    task = Task("classification", ("a", "b", "c"), max_length=16)
    return reseal(copy, **{"inputs": ["input_ids"], "outputs": ["logits"], "task": task, **changes})
