"""The vocabulary of a checkpoint's folder, cut down to the pieces that files of texts use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.checkpoint import load_model, load_tokenizer, open_checkpoint, save
from distill.errors import DataError
from distill.files import new_folder, read_json
from distill.readers import read_table
from distill.seq2seq import ARCHITECTURES, load_seq2seq
from distill.smaller_vocabulary import prune_vocabulary
from distill.table import as_text


def prune_folder(source: Path, data: Sequence[Path], target: Path) -> Mapping[str, Any]:
    """Write `source` with the pieces that the texts of `data` use as the folder `target`; pieces and bytes come back.

    Every cell of the files counts as a text, those of the first line too: it may be a header or not.

    Raises:
        CheckpointError: the folder cannot be used, or its vocabulary cannot shrink.
        DataError: a file cannot be read, or there is no text.
        RunError: `target` exists.
    """
    task = open_checkpoint(source).task
    kind = read_json(source / "config.json").get("model_type")
    model = load_seq2seq(source) if kind in ARCHITECTURES else load_model(source)
    pruned = prune_vocabulary(model, load_tokenizer(source), [text for path in data for text in texts_of(path)])
    with new_folder(target) as folder:
        save(pruned.model, pruned.tokenizer, task, folder)
    return pruned.to_json()


def texts_of(path: Path) -> Iterator[str]:
    """All cells of a file of rows, whatever its columns are.

    Raises:
        DataError: the file cannot be read, or rows of it are broken.
    """
    table = read_table(path)
    if table.problems:
        raise DataError(
            f"{path.name}: {len(table.problems)} row(s) cannot be read; mend or remove them", table.problems
        )
    yield from table.columns
    for row in table.rows:
        yield from (as_text(value) for value in row.cells.values() if isinstance(value, str))
