"""What quantizing writes into the folder that becomes a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx

from compress.quantization.int8 import REDUCE_RANGE
from distill.environment import cpu_flags, cpu_model
from export.bundle import Bundle, seal
from export.graphs.writer import opset_of
from export.manifest import CONFIG, TOKENIZER

PRECISIONS: Mapping[str, str] = MappingProxyType(
    {"dynamic": "int8-dynamic", "static": "int8-static", "inc-static": "int8-static"}
)
"""How bundles call what a method makes; the others are called like their method."""


def precision_of(method: str) -> str:
    """The precision of a bundle that a method makes."""
    return PRECISIONS.get(method, method)


def model_file(method: str) -> str:
    """Where the graph lies that a method makes."""
    return f"onnx/model_{precision_of(method).partition('-')[0]}.onnx"


def write_parts(folder: Path, bundle: Bundle, graph: onnx.ModelProto, method: str) -> None:
    """Everything of a quantized bundle but its card and manifest; the fp32 graph stays where it is."""
    path = folder / model_file(method)
    path.parent.mkdir()
    path.write_bytes(graph.SerializeToString(deterministic=True))
    for name in (TOKENIZER, CONFIG):
        shutil.copyfile(bundle.folder / name, folder / name)


def copy_parts(source: Path, folder: Path, method: str) -> None:
    """What `write_parts` wrote, from one folder to another."""
    (folder / model_file(method)).parent.mkdir()
    for name in (model_file(method), TOKENIZER, CONFIG):
        shutil.copyfile(source / name, folder / name)


def seal_quantized(
    folder: Path, bundle: Bundle, method: str, details: Mapping[str, Any], device: str = "cpu"
) -> Bundle:
    """Make the folder, whose parts are written, a bundle for a device."""
    model = onnx.load(folder / model_file(method))
    rounded = {"reduce_range": REDUCE_RANGE} if method in PRECISIONS and device == "cpu" else {}
    return seal(
        folder,
        task=bundle.task,
        precision=precision_of(method),
        model_file=model_file(method),
        opset=opset_of(model),
        inputs=[value.name for value in model.graph.input],
        outputs=[value.name for value in model.graph.output],
        cpu={"model": cpu_model(), "flags": cpu_flags()},
        details={**details, **rounded, "device": device},
    )
