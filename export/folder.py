"""What every export writes into the folder that becomes an fp32 bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
from transformers import PreTrainedTokenizerBase

from distill import files
from distill.environment import cpu_flags, cpu_model
from distill.task import Task
from export.bundle import Bundle, seal
from export.graphs.writer import opset_of
from export.manifest import CONFIG, TOKENIZER

MODEL_FILE = "onnx/model.onnx"


def write_parts(folder: Path, source: Path, graph: onnx.ModelProto, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the graph, tokenizer.json and config.json."""
    (folder / MODEL_FILE).parent.mkdir()
    (folder / MODEL_FILE).write_bytes(graph.SerializeToString(deterministic=True))
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    _write_config(source, folder)


def _write_config(source: Path, folder: Path) -> None:
    """Copy the model's config without the place it was once loaded from."""
    config = files.read_json(source / CONFIG)
    config.pop("_name_or_path", None)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def seal_fp32(folder: Path, task: Task, graph: onnx.ModelProto, details: dict[str, Any]) -> Bundle:
    """Make the folder a bundle."""
    return seal(
        folder,
        task=task,
        precision="fp32",
        model_file=MODEL_FILE,
        opset=opset_of(graph),
        inputs=[value.name for value in graph.graph.input],
        outputs=[value.name for value in graph.graph.output],
        cpu={"model": cpu_model(), "flags": cpu_flags()},
        details=details,
    )
