"""A language pair that a tiny model learns in seconds: digits, read backwards."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from command_runs import Project

MARIAN: dict[str, Any] = {
    "model_type": "marian",
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
    "activation_function": "relu",
    "dropout": 0.0,
}
TASK: dict[str, Any] = {"kind": "translation", "text": "there", "target": "back", "max_length": 16}
TRAINING: dict[str, Any] = {
    "num_train_epochs": 2,
    "tokens_per_batch": 400,
    "learning_rate": 0.005,
    "logging_steps": 2,
    "bf16": False,
}


def reversals(count: int, seed: int = 0, most: int = 6) -> list[tuple[str, str]]:
    """Different rows of digits, and the same backwards."""
    choose = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        digits = choose.choices("0123456789", k=choose.randint(2, most))
        found[" ".join(digits)] = " ".join(reversed(digits))
    return list(found.items())


def write_translation_project(folder: Path, rows: int = 128, **changes: Any) -> Project:
    """Pairs without a header line, ten sentences without translations, and a recipe of a few steps from nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = reversals(rows)
    (folder / "more.txt").write_text("".join(f"{a}\n" for a, _ in reversals(rows + 10)[rows:]))
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs))
    recipe = {
        "name": "toy",
        "data": {"source": "pairs.tsv", "columns": ["there", "back"], "unlabelled": "more.txt"},
        "task": TASK,
        "vocabulary": {"size": 300},
        "teacher": {"config": MARIAN, "training": TRAINING},
        "label": {"beams": 2, "n_best": 2, "shard_sentences": 32},
        "student": {"decoder_layers": 1, "training": TRAINING},
    }
    (folder / "recipe.yaml").write_text(json.dumps({**recipe, **changes}))
    return Project(folder)
