"""Checkpoints of a training that was cut off: which are whole, and which is the newest."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from distill import files

LOG = logging.getLogger("potstill")
SEAL = "manifest.json"
NEEDED = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def seal(folder: Path) -> None:
    """Write the manifest that makes a checkpoint count: size and sha256 of each file, after they are all there."""
    entries = {name: entry for name, entry in files.hash_files(folder).items() if name != SEAL}
    files.write_json(folder / SEAL, entries)


def fault(folder: Path) -> str | None:
    """Why a checkpoint does not count; None when it is whole."""
    try:
        entries = files.read_json(folder / SEAL)
    except (OSError, ValueError):
        return "not finished"
    missing = [name for name in (*NEEDED, *entries) if not (folder / name).is_file()]
    if missing:
        return f"{missing[0]} is missing"
    wrong = [name for name, entry in entries.items() if files.sha256(folder / name) != entry["sha256"]]
    return f"{wrong[0]} is damaged (sha256 differs)" if wrong else None


def newest_complete(work: Path) -> Path | None:
    """The newest whole checkpoint in `work`; newer ones that are not whole are named and removed."""
    folders = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for folder in folders:
        reason = fault(folder)
        if reason is None:
            return folder
        LOG.warning("%s is left out: %s", folder.name, reason)
        shutil.rmtree(folder)
    return None
