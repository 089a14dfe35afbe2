"""Checkpoints in torch: inference mode, transformers' own attention (SDPA), threads pinned while one is open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from bench.backends import Backend, Batch
from bench.torch_translator import open_torch_translator
from distill.checkpoint import load_model, load_tokenizer, open_checkpoint
from distill.errors import CheckpointError, ProviderError
from distill.task import Task
from export.session import INPUTS
from export.texts import Text


@dataclass(frozen=True)
class TorchBackend:
    """A checkpoint in evaluation mode on one device."""

    task: Task
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    inputs: tuple[str, ...]
    device: str

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits `(batch, labels)`; the copy back to the processor waits for a GPU to finish."""
        inputs = {name: torch.from_numpy(batch[name]).to(self.device) for name in self.inputs if name in batch}
        with torch.inference_mode():
            logits = self.model(**inputs).logits
        return np.asarray(logits.float().cpu().numpy(), np.float32)

    def logits(self, texts: Sequence[Text], batch_size: int) -> NDArray[np.float32]:
        """Logits `(texts, labels)`, computed in batches of about equal length."""
        answers = np.empty((len(texts), self.task.num_labels), np.float32)
        order = np.argsort([len(str(text)) for text in texts], kind="stable")
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            answers[rows] = self.run(self._encode([texts[row] for row in rows]))
        return answers

    def _encode(self, texts: list[Text]) -> Batch:
        """One batch, cut to the task's length and padded to its longest."""
        columns = [list(column) for column in zip(*texts, strict=True)] if self.task.pair else [texts]
        encoded: Any = self.tokenizer(
            *columns, truncation=True, max_length=self.task.max_length, padding=True, return_tensors="np"
        )
        return {name: np.asarray(array, np.int64) for name, array in encoded.items()}


@contextmanager
def open_backend(folder: Path, precision: str, threads: int, device: str) -> Iterator[Backend]:
    """A checkpoint in torch; the number of torch's threads is put back at the end.

    Raises:
        CheckpointError: it cannot be loaded, knows no task, or `precision` is not fp32.
        ProviderError: torch has no such device here.
    """
    _check(precision, device)
    task = open_checkpoint(folder).task
    if task is None:
        raise CheckpointError(f"{folder} has no task.json: measure a model that was fine-tuned with potstill")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield open_torch_translator(folder, task, device) if task.kind == "translation" else _open(folder, task, device)
    finally:
        torch.set_num_threads(before)


def _open(folder: Path, task: Task, device: str) -> TorchBackend:
    """A checkpoint of an encoder with labels."""
    model = load_model(folder).to(device)
    # DistilBERT, for one, takes no segments
    inputs = tuple(name for name in INPUTS if name in signature(model.forward).parameters)
    return TorchBackend(task, model, load_tokenizer(folder), inputs, device)


def _check(precision: str, device: str) -> None:
    """Refuse what torch does not do here."""
    if precision != "fp32":
        raise CheckpointError(f"torch is measured in fp32, not in {precision!r}")
    if device not in ("cpu", "cuda"):
        raise ProviderError(f"torch does not run on {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ProviderError(f"torch {torch.__version__} finds no CUDA device")
