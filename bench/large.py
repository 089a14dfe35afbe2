"""BERT-large's real size through the whole run: `python -m bench.large FOLDER`.

The weights are random (the shape is what is measured): 24 layers of width 1024 with 335 million parameters, 20 teaching
steps, labels, a 6-layer student, ONNX, int8 and the latency table. Prints the peak memory of the largest process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import click
from transformers import BertConfig, BertModel

from distill.checkpoint import fetch, load_tokenizer
from distill.command import HELP, call, quiet_libraries
from distill.sources import default_cache

ROWS = 240
TOPICS = {"film": "camera actor scene story music light", "food": "butter pepper oven bread soup lemon"}


def write_model(folder: Path, tokenizer: str) -> None:
    """BERT-large with random weights, and a tokenizer of BERT's vocabulary (30,522 entries)."""
    large = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    BertModel(large).save_pretrained(folder)
    load_tokenizer(fetch(tokenizer, Path(), default_cache())).save_pretrained(folder)


def write_rows(path: Path) -> None:
    """Sentences of about 30 tokens, each on one of two topics."""
    lines = ["text,label"]
    for i in range(ROWS):
        label = list(TOPICS)[i % 2]
        words = TOPICS[label].split()
        lines.append(" ".join(words[(i // 2 + k * (1 + i % 5)) % len(words)] for k in range(28)) + f" {i},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def recipe(threads: list[int | str]) -> dict[str, object]:
    """A recipe whose steps are few and whose gate lets everything through: random weights have no quality to keep."""
    training = {"max_steps": 20, "per_device_train_batch_size": 8, "learning_rate": 2e-5}
    return {
        "name": "bert-large-size",
        "data": {"source": "rows.csv"},
        "teacher": {"model": "bert-large", "training": training},
        "student": {"layers": 6, "training": training},
        "quantize": {"max_drop": 0.99, "margin": 0.99, "max_flips": 0.99, "calibration_examples": 64},
        "bench": {"batch_sizes": [1, 8], "lengths": [16, 64, 128], "threads": threads, "seconds_per_cell": 20},
    }


@click.command(context_settings=HELP)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--tokenizer", required=True, help="Model source whose tokenizer has BERT's vocabulary.")
def large(folder: Path, tokenizer: str) -> None:
    """Build BERT-large in FOLDER and run everything on it."""
    quiet_libraries()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "bert-large").is_dir():
        write_model(folder / "bert-large", tokenizer)
    write_rows(folder / "rows.csv")
    (folder / "recipe.yaml").write_text(json.dumps(recipe([1]), indent=2), encoding="utf-8")
    started = time.monotonic()
    command = [sys.executable, "-m", "compress", "run", str(folder / "recipe.yaml"), "-o", str(folder / "run")]
    finished = subprocess.run(command, check=False)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    click.echo(f"peak memory of the largest process: {peak / 1e9:.2f} GB; {time.monotonic() - started:.0f} s")
    sys.exit(finished.returncode)


if __name__ == "__main__":
    call(large)
