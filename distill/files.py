"""Files that are whole or not there: hashes, JSON, and folders that appear under their name only when complete."""

from __future__ import annotations

import contextlib
import errno
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
OLD = ".old-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_WORDS = ("no space left", "disk quota exceeded", "file too large", "inline_container")
"""How torch and safetensors say that a disk is full; torch names the file of its own that noticed."""


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
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a fresh folder beside `target`; when the block ends well it gets the name `target`.

    With `replace`, a folder that has the name already keeps it until then.

    Raises:
        RunError: `target` exists already, or the disk is full.
    """
    if target.exists() and not replace:
        raise RunError(f"{target} exists already; choose another folder or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _free_name(target.parent)
    temporary.mkdir()
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        _put_in_place(temporary, target)
    except Exception as error:
        if isinstance(error, RunError) or not is_full(error):
            raise
        raise disk_error(error, target.parent) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename; an old folder of the name steps aside first, and `tidy` brings it back if we die in between."""
    old = target.with_name(OLD + target.name)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    temporary.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _free_name(parent: Path) -> Path:
    """A temporary name that nobody has taken."""
    number = 0
    while (name := parent / f"{TEMPORARY}{os.getpid()}-{number}").exists():
        number += 1
    return name


def tidy(parent: Path) -> list[Path]:
    """Clear up in `parent` after processes that are gone; return the half written names that were removed.

    An old folder whose successor never got its name gets the name back.
    """
    for old in parent.glob(f"{OLD}*"):
        target = parent / old.name.removeprefix(OLD)
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)
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


def is_full(error: BaseException) -> bool:
    """Whether a write failed because there is no room (or no quota) left."""
    text = str(error).lower()
    return getattr(error, "errno", None) in FULL or any(words in text for words in FULL_WORDS)


def disk_error(error: BaseException, folder: Path, needs: int | None = None) -> RunError:
    """One clear line for a failed write: how much is free, and how many bytes were needed when that is known."""
    if not is_full(error):
        return RunError(f"cannot write in {folder}: {getattr(error, 'strerror', None) or error}")
    wanted = f"needs {needs / 1e6:.1f} MB, " if needs else ""
    return RunError(
        f"No space left: {wanted}{free_bytes(folder) / 1e6:.1f} MB free in {folder}; "
        "make room and run the same command again"
    )


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds `folder`; 0 for one that is not there."""
    return shutil.disk_usage(folder).free if folder.exists() else 0


def look_for_room(folder: Path, needs: int) -> None:
    """Complain before anything is half written.

    Raises:
        RunError: fewer than `needs` bytes are free.
    """
    if free_bytes(folder) < needs:
        raise disk_error(OSError(errno.ENOSPC, "No space left on device"), folder, needs)
