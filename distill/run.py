"""Run folders: one holder at a time, steps that are whole or not there, and a manifest that is written last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distill import files
from distill.errors import RecipeError, RunError

LOG = logging.getLogger("potstill")
MANIFEST = "run.json"
FORMAT = 1
PACKAGES = ("potstill", "numpy", "torch", "transformers", "tokenizers", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Step:
    """One step of a run: the folder it makes, and everything that decides what comes out."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for the step's result to be used again. `inputs` are sha256 sums by name."""
        value = {"format": FORMAT, "step": self.name, "settings": self.settings, "inputs": dict(self.inputs)}
        return dict(json.loads(json.dumps(value)))


@contextlib.contextmanager
def lock(folder: Path, force: bool = False) -> Iterator[None]:
    """Hold a run folder; leftovers of processes that died are cleared up first.

    Raises:
        RecipeError: the folder cannot be written, or holds something else than a run and `force` is not given.
        RunError: another process holds it.
    """
    _make(folder, force)
    holder = folder / ".lock.json"
    guard = FileLock(folder / ".lock")
    try:
        guard.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"{folder} is in use by {_holder(holder)}; wait for it, or choose another folder with -o"
        ) from error
    try:
        files.write_json(holder, {"pid": os.getpid(), "host": platform.node(), "since": _now()})
        files.tidy(folder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        guard.release()


def _make(folder: Path, force: bool) -> None:
    """Make sure that the run folder is there, is one, and can be written."""
    if folder.is_dir() and any(folder.iterdir()) and not (force or _is_run(folder)):
        raise RecipeError(f"{folder} holds something else than a run; choose another -o, or --force to use it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise RecipeError(f"cannot write the run folder {folder}: {error.strerror}; choose another with -o") from error


def _is_run(folder: Path) -> bool:
    """Whether a folder was used for a run before."""
    return (folder / ".lock").exists() or any(folder.glob(f"*/{MANIFEST}"))


def _holder(path: Path) -> str:
    """Who holds the lock, as far as the file says."""
    try:
        value = files.read_json(path)
        return f"pid {value['pid']} on {value['host']} since {value['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a step that is complete: written last, with every file there in its size. Otherwise None."""
    try:
        value = files.read_json(folder / MANIFEST)
        sizes = {name: entry["bytes"] for name, entry in value["files"].items() if entry["sha256"]}
        whole = value["fingerprint"] and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(value) if whole else None


def damaged(folder: Path, value: Mapping[str, Any]) -> list[str]:
    """The files whose sha256 is not the manifest's."""
    return [name for name, entry in value["files"].items() if files.sha256(folder / name) != entry["sha256"]]


def is_done(step: Step) -> bool:
    """Whether the step's result is there, whole, and made from the same settings and inputs.

    Raises:
        RecipeError: the folder holds something else; says what differs.
    """
    if not step.folder.exists():
        return False
    found = manifest(step.folder)
    if found is None:
        raise RecipeError(
            f"{step.folder} exists and is not a finished {step.name} step; choose another -o, or --force to redo it"
        )
    differing = differences(found["fingerprint"], step.fingerprint)
    if differing:
        raise RecipeError(
            f"{step.folder} was made with other settings; choose another folder with -o, or --force to redo it",
            differing,
        )
    broken = damaged(step.folder, found)
    if broken:
        raise RecipeError(f"{step.folder} is damaged (sha256 differs); --force redoes the {step.name} step", broken)
    return True


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """One line for each key whose value differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [f"{path.removeprefix('settings.')}: was {_short(old)}, is {_short(new)}"]


def _short(value: Any) -> str:
    """A value in one short line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def run_step(step: Step, make: Callable[[Path], Mapping[str, Any]], force: bool = False) -> dict[str, Any]:
    """Run `make(folder)` unless its result is there already; return the step's manifest.

    `make` writes into a fresh folder that gets the step's name only when everything, the manifest last, is on the
    disk; what it returns is kept under `result`. With `force` an old result stays until the new one is whole.

    Raises:
        RecipeError: the folder holds something else and `force` is not given.
        RunError: the disk is full.
    """
    if may_reuse(step, force):
        return manifest(step.folder) or {}
    started, clock = _now(), time.monotonic()
    with files.new_folder(step.folder, replace=force) as folder:
        result = make(folder)
        value = {
            "format": FORMAT,
            "step": step.name,
            "fingerprint": step.fingerprint,
            "result": dict(result),
            "started": started,
            "seconds": round(time.monotonic() - clock, 3),
            "versions": versions(),
            "files": files.hash_files(folder),
        }
        files.write_json(folder / MANIFEST, value)
    return value


def may_reuse(step: Step, force: bool) -> bool:
    """Whether the old result stands; with `force` what does not fit is simply redone."""
    try:
        done = is_done(step)
    except RecipeError:
        if not force:
            raise
        return False
    if done:
        LOG.info("%s is up to date", step.folder)
    return done


def output_sum(value: Mapping[str, Any]) -> str:
    """One sha256 for all files of a finished step: what the next step's fingerprint names as its input."""
    text = json.dumps({name: entry["sha256"] for name, entry in value["files"].items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """The installed versions of what decides a result."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
