"""Checkpoints of a training that was cut off: which are whole, which is the newest, and which are kept."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

from distill import files

LOG = logging.getLogger("potstill")
SEAL = "manifest.json"
STATE = "trainer_state.json"
NEEDED = ("model.safetensors", "optimizer.pt", "scheduler.pt", STATE)


def seal(folder: Path) -> None:
    """Write the manifest that makes a checkpoint count: size and sha256 of each file, after they are all there."""
    entries = {name: entry for name, entry in files.hash_files(folder).items() if name != SEAL}
    files.write_json(folder / SEAL, entries)


def fault(folder: Path) -> str | None:
    """Why a checkpoint does not count; None when it is whole."""
    try:
        sums = {str(name): str(entry["sha256"]) for name, entry in files.read_json(folder / SEAL).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "not finished"
    missing = [name for name in (*NEEDED, *sums) if not (folder / name).is_file()]
    if missing:
        return f"{missing[0]} is missing"
    wrong = [name for name, expected in sums.items() if files.sha256(folder / name) != expected]
    return f"{wrong[0]} is damaged (sha256 differs)" if wrong else None


def _best_fault(folder: Path) -> str | None:
    """Why the best checkpoint so far, which is the result in the end, does not count."""
    step = json.loads((folder / STATE).read_text(encoding="utf-8")).get("best_global_step")
    best = checkpoint(folder.parent, step) if step else folder
    reason = fault(best) if best != folder else None
    return f"its best checkpoint {best.name} is left out ({reason})" if reason else None


def checkpoint(work: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return work / f"checkpoint-{step}"


def checkpoints(work: Path) -> list[Path]:
    """All checkpoints in `work`, whole or not, the newest first."""
    found = {path: re.fullmatch(r"checkpoint-([0-9]+)", path.name) for path in work.glob("checkpoint-*")}
    steps = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(steps, key=steps.__getitem__, reverse=True)


def newest_complete(work: Path) -> Path | None:
    """The newest whole checkpoint in `work` whose best one is whole too; newer ones are named and removed."""
    for folder in checkpoints(work):
        reason = fault(folder) or _best_fault(folder)
        if reason is None:
            return folder
        LOG.warning("%s is left out: %s", folder.name, reason)
        shutil.rmtree(folder)
    return None


def rotate(work: Path, limit: int, best: int | None) -> None:
    """Keep the newest checkpoint, the one of step `best`, and others only up to `limit` in all.

    Called once the newest is sealed, so that there is a whole one at every moment; goes by step numbers, not by the
    clock.
    """
    newest, *older = checkpoints(work)
    kept = {newest, checkpoint(work, best) if best else newest}
    for folder in older:
        if folder not in kept and len(kept) < limit:
            kept.add(folder)
        if folder not in kept:
            shutil.rmtree(folder)
