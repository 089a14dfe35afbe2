"""What quantizing writes into the folder that becomes an int8 bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from compress.int8 import REDUCE_RANGE
from distill.environment import cpu_flags, cpu_model
from export.bundle import Bundle, seal
from export.manifest import CONFIG, TOKENIZER

MODEL_FILE = "onnx/model_int8.onnx"
PARTS = (MODEL_FILE, TOKENIZER, CONFIG)


def write_parts(folder: Path, bundle: Bundle, graph: onnx.ModelProto) -> None:
    """Everything of an int8 bundle but its card and manifest; the fp32 graph stays where it is."""
    (folder / MODEL_FILE).parent.mkdir()
    (folder / MODEL_FILE).write_bytes(graph.SerializeToString(deterministic=True))
    for name in (TOKENIZER, CONFIG):
        shutil.copyfile(bundle.folder / name, folder / name)


def seal_int8(folder: Path, bundle: Bundle, method: str, details: Mapping[str, Any]) -> Bundle:
    """Make the folder, whose parts are written, an int8 bundle."""
    graph = onnx.load(folder / MODEL_FILE).graph
    return seal(
        folder,
        task=bundle.task,
        precision=f"int8-{method}",
        model_file=MODEL_FILE,
        opset=bundle.opset,
        inputs=[value.name for value in graph.input],
        outputs=[value.name for value in graph.output],
        cpu={"model": cpu_model(), "flags": cpu_flags()},
        details={**details, "reduce_range": REDUCE_RANGE},
    )
