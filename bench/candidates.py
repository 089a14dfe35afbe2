"""What is measured: one model, in one runtime, at one precision, from one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import DataError
from distill.rows import Size
from distill.task import KINDS, Task
from export.bundle import read_bundle
from export.manifest import CONFIG, MANIFEST
from export.texts import Limits, read_limits

TASK = "task.json"
PEER, SOURCE = "peer.json", "source.json"
"""In a peer's folder: which peer and precision it is for, and the config.json of the model it was made from."""
CHECKPOINTS = ("teacher", "student", "pruned", "factorised")
CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    TASK,
)
"""What inference from a checkpoint reads; a checkpoint's folder also keeps what training left behind."""
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Candidate:
    """A model to measure. `method` tells int8 schemes apart ("dynamic", "static")."""

    model: str
    runtime: str
    precision: str
    folder: Path
    method: str | None = None

    @property
    def name(self) -> str:
        """Model, runtime and precision in one line: "bundle onnxruntime int8 static"."""
        return " ".join(part for part in (self.model, self.runtime, self.precision, self.method) if part)


def from_checkpoint(model: str, folder: Path) -> Candidate:
    """A checkpoint in torch, in fp32."""
    return Candidate(model, "torch", "fp32", folder)


def from_bundle(model: str, folder: Path) -> Candidate:
    """A bundle in onnxruntime, at the precision it declares ("int8-static" is int8 by the static method).

    Raises:
        BundleError: it is damaged or not a bundle.
    """
    precision, _, method = read_bundle(folder).precision.partition("-")
    return Candidate(model, "onnxruntime", precision, folder, method or None)


def from_folder(folder: Path, model: str | None = None) -> Candidate:
    """A bundle, a checkpoint or a peer's model, whichever `folder` holds; named like the folder unless told otherwise.

    Raises:
        BundleError: a damaged bundle.
        DataError: neither.
    """
    name = model or folder.resolve().name
    if (folder / MANIFEST).is_file():
        return from_bundle(name, folder)
    if (folder / PEER).is_file():
        about = json.loads((folder / PEER).read_bytes())
        return Candidate(name, about["peer"], about["precision"], folder)
    if (folder / CONFIG).is_file():
        return from_checkpoint(name, folder)
    raise DataError(f"{folder} is neither a bundle ({MANIFEST}) nor a checkpoint ({CONFIG})")


def task_of(candidate: Candidate) -> Task | None:
    """What a model answers; None for a checkpoint that does not say so, which is for its runtime to refuse.

    Raises:
        BundleError: a damaged bundle.
    """
    if (candidate.folder / MANIFEST).is_file():
        return read_bundle(candidate.folder, verify=False).task
    try:
        return Task.from_json(json.loads((candidate.folder / TASK).read_bytes()))
    except (OSError, ValueError):
        return None


def kind_of(candidate: Candidate) -> str:
    """The kind of task that a model answers.

    Raises:
        BundleError: a damaged bundle.
    """
    task = task_of(candidate)
    return KINDS[0] if task is None else task.kind


def made_for(candidate: Candidate) -> str:
    """The device that a bundle was made for: cpu, cuda or tensorrt.

    Raises:
        BundleError: it is damaged or not a bundle.
    """
    return read_bundle(candidate.folder, verify=False).device


def longest(candidate: Candidate) -> int | None:
    """How many tokens the model reads, and where it translates also writes, at most; None: any number."""
    task = task_of(candidate)
    if task is not None and task.kind == "translation":
        return min(task.max_length, task.max_target_length or task.max_length)
    return limits(candidate).positions


def run_candidates(
    run: Path, teacher_bundle: Path | None = None, checkpoints: Sequence[str] = CHECKPOINTS
) -> list[Candidate]:
    """What a run's folder holds, the teacher first.

    Read are the `checkpoints` (`teacher/`, `student/` and what was made of it), `fp32/` (the bundle of the last one: it
    goes by that one's name) and `bundle/`; `teacher_bundle` is the teacher as an fp32 bundle. What is missing is passed
    over, and so is a `bundle/` in fp32 beside `fp32/`, which is the same model.
    """
    found = [from_checkpoint(name, run / name) for name in checkpoints if (run / name).is_dir()]
    last = found[-1].model if found else "student"
    if teacher_bundle is not None:
        found.insert(1, from_bundle("teacher", teacher_bundle))
    if (run / "fp32").is_dir():
        found.append(from_bundle(last, run / "fp32"))
    if (run / "bundle").is_dir():
        shipped = from_bundle("bundle", run / "bundle")
        found += [] if shipped.precision == "fp32" and (run / "fp32").is_dir() else [shipped]
    return found


def size(candidate: Candidate) -> Size:
    """The bytes on disk of all that inference reads."""
    weights, files = _weights(candidate.folder), _files(candidate.folder)
    return Size(
        model=candidate.model,
        precision=candidate.precision,
        bytes=sum(path.stat().st_size for path in files),
        runtime=candidate.runtime,
        method=candidate.method,
        weights_bytes=weights.stat().st_size if weights.is_file() else None,
    )


def limits(candidate: Candidate) -> Limits:
    """How many ids and positions the model has."""
    source = candidate.folder / SOURCE
    return read_limits((source if source.is_file() else candidate.folder / CONFIG).read_bytes())


def _files(folder: Path) -> list[Path]:
    """The files that inference reads."""
    if (folder / MANIFEST).is_file() or (folder / PEER).is_file():
        return [path for path in folder.rglob("*") if path.is_file()]
    return [folder / name for name in CHECKPOINT_FILES if (folder / name).is_file()]


def _weights(folder: Path) -> Path:
    """The file that holds the weights; of a peer the largest one."""
    if (folder / PEER).is_file():
        return max(_files(folder), key=lambda path: path.stat().st_size)
    manifest = folder / MANIFEST
    return folder / json.loads(manifest.read_bytes())["model"] if manifest.is_file() else folder / WEIGHTS
