"""Files that are whole or not there: hashes, JSON, and folders that appear under their name only when complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.errors import RunError

JSON_LIMIT = 64 * 2**20
TEMPORARY = ".tmp-"


def sha256(path: Path) -> str:
    """The sha256 of one file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and sha256 of each file below `folder`, by its relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files
    }


def _sync(path: Path) -> None:
    """Push one file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path.parent) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all.

    Raises:
        ValueError: `value` holds NaN or an infinity.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """Read JSON that somebody else may have written.

    Raises:
        ValueError: too large, not UTF-8, not JSON, a key twice, NaN, or nested too deeply.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > limit:
        raise ValueError(f"larger than {limit} bytes")
    return parse_json(path.read_bytes())


def parse_json(data: bytes) -> Any:
    """Parse strict JSON: no duplicate keys, no NaN, no endless nesting.

    Raises:
        ValueError: saying what is wrong in one line.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return value


def _refuse(constant: str) -> None:
    """JSON has no NaN and no Infinity."""
    raise ValueError(f"{constant} is not JSON")


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a fresh folder beside `target`; when the block ends well it gets the name `target`.

    Raises:
        RunError: `target` exists already, or the disk is full.
    """
    if target.exists():
        raise RunError(f"{target} exists already; choose another folder or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _free_name(target.parent)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            _sync(path)
        temporary.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise disk_error(error, target.parent) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _free_name(parent: Path) -> Path:
    """A temporary name that nobody has taken."""
    number = 0
    while (name := parent / f"{TEMPORARY}{os.getpid()}-{number}").exists():
        number += 1
    return name


def remove_stale(parent: Path) -> list[Path]:
    """Remove what processes that are gone left half written in `parent`; return what was removed."""
    stale = [path for path in parent.glob(f"{TEMPORARY}*") if not _alive(path)]
    for path in stale:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return stale


def _alive(path: Path) -> bool:
    """Whether the process that made this temporary name still runs, and is not this one."""
    number = path.name.removeprefix(TEMPORARY).split("-")[0]
    if not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def disk_error(error: OSError, folder: Path, needs: int | None = None) -> RunError:
    """One clear line for a failed write: how much is free, and what was needed when that is known."""
    free = shutil.disk_usage(folder).free / 1e6 if folder.exists() else 0.0
    wanted = f"needs {needs / 1e6:.1f} MB, " if needs else ""
    return RunError(f"{error.strerror or error} while writing: {wanted}{free:.1f} MB free in {folder}")
