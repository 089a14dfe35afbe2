"""The bundle: a folder with a model, its tokenizer and bundle.json, which knows the sha256 of every file.

Hashes protect against damage, not against somebody who rewrites bundle.json too: for that, pin `Bundle.id`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from distill.errors import BundleError
from distill.files import hash_files, write_json, write_text
from distill.task import Task
from export.card import card
from export.manifest import BUNDLE_FORMAT, CONFIG, MANIFEST, MANIFEST_LIMIT, TOKENIZER, parse_manifest

CARD = "README.md"


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and sha256 (hex) of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """What is deployed. `folder` is resolved; `id` is the sha256 of bundle.json, which pins all the rest."""

    folder: Path
    task: Task
    precision: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    model_file: str
    files: Mapping[str, FileEntry]
    cpu: Mapping[str, Any]
    details: Mapping[str, Any]
    potstill: str
    id: str

    @property
    def model_path(self) -> Path:
        """Where the .onnx file lies."""
        return self.folder / self.model_file

    @property
    def device(self) -> str:
        """What the bundle was made for: cpu, cuda or tensorrt."""
        return str(self.details.get("device", "cpu"))

    @property
    def bytes(self) -> int:
        """Size of all files but bundle.json."""
        return sum(entry.bytes for entry in self.files.values())


def read_bundle(folder: Path, verify: bool = True) -> Bundle:
    """Read bundle.json and, unless told not to, compare every file with it.

    Raises:
        BundleError: not a bundle, or naming every file that is missing or damaged.
    """
    bundle = _read_manifest(Path(folder))
    if verify:
        read_files(bundle, keep=())
        warn_of_extra_files(bundle)
    return bundle


def read_files(bundle: Bundle, keep: Collection[str], verify: bool = True) -> dict[str, bytes]:
    """Read every file once, compare it with its sha256, and return those in `keep`.

    What is returned is what was hashed, so nobody can change a file between the two.
    Without `verify` only the files in `keep` are read, and only their sizes are compared.

    Raises:
        BundleError: naming every file that is missing or damaged.
    """
    contents, problems = {}, []
    for name, entry in bundle.files.items():
        if not verify and name not in keep:
            continue
        try:
            content = _read_file(bundle.folder, name, entry, verify)
        except (ValueError, OSError) as error:
            problems.append(f"{name}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        if name in keep:
            contents[name] = content
    if problems:
        raise BundleError(f"the bundle {bundle.folder} is damaged; copy or build it again", problems)
    return contents


def warn_of_extra_files(bundle: Bundle) -> list[str]:
    """Warn of files that bundle.json does not list, hidden ones and a run's manifest aside; return their names."""
    known = {MANIFEST, "run.json", *bundle.files}
    names = (path.relative_to(bundle.folder) for path in bundle.folder.rglob("*") if path.is_file())
    extra = sorted(n.as_posix() for n in names if n.as_posix() not in known and not n.parts[0].startswith("."))
    if extra:
        warnings.warn(f"files in {bundle.folder} that bundle.json does not list: {', '.join(extra)}", stacklevel=3)
    return extra


def seal(
    folder: Path,
    *,
    task: Task,
    precision: str,
    model_file: str,
    opset: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    cpu: Mapping[str, Any],
    details: Mapping[str, Any],
) -> Bundle:
    """Turn a folder with a model, tokenizer.json and config.json into a bundle; bundle.json is written last.

    A README.md that is not there yet is written too.

    Raises:
        BundleError: a file is missing or a value does not fit.
    """
    missing = [name for name in (model_file, TOKENIZER, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise BundleError(f"{folder} cannot become a bundle", [f"{name}: missing" for name in missing])
    if not (folder / CARD).exists():
        files = {name: FileEntry(**entry) for name, entry in hash_files(folder).items() if name != MANIFEST}
        write_text(folder / CARD, card(task, precision, opset, model_file, files, details))
    manifest = {
        "format": BUNDLE_FORMAT,
        "potstill": installed_version(),
        "task": task.to_json(),
        "precision": precision,
        "model": model_file,
        "opset": opset,
        "inputs": list(inputs),
        "outputs": list(outputs),
        "cpu": dict(cpu),
        "details": dict(details),
        "files": {name: entry for name, entry in hash_files(folder).items() if name != MANIFEST},
    }
    write_json(folder / MANIFEST, manifest)
    return _read_manifest(folder)


def installed_version() -> str:
    """The version of potstill, or "0" where it runs from a folder that was never installed."""
    from importlib import metadata  # 50 ms, and loading a bundle does not need it

    try:
        return metadata.version("potstill")
    except metadata.PackageNotFoundError:
        return "0"


def _read_manifest(folder: Path) -> Bundle:
    """The bundle that bundle.json describes, its files not yet looked at."""
    try:
        root = folder.resolve(strict=True)
        with _open(root, MANIFEST) as file:
            data = file.read(MANIFEST_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BundleError(f"{folder} is not a bundle: {MANIFEST}: {reason}") from error
    if len(data) > MANIFEST_LIMIT:
        raise BundleError(f"{folder} is not a bundle: {MANIFEST} is larger than {MANIFEST_LIMIT} bytes")
    value = parse_manifest(data)
    files = {name: FileEntry(entry["bytes"], entry["sha256"]) for name, entry in value["files"].items()}
    return Bundle(
        folder=root,
        task=value["task"],
        precision=value["precision"],
        opset=value["opset"],
        inputs=tuple(value["inputs"]),
        outputs=tuple(value["outputs"]),
        model_file=value["model"],
        files=files,
        cpu=value["cpu"],
        details=value["details"],
        potstill=value["potstill"],
        id=hashlib.sha256(data).hexdigest(),
    )


def _read_file(root: Path, name: str, entry: FileEntry, verify: bool) -> bytes:
    """The content of one file.

    Raises:
        ValueError: saying how it differs from its entry.
    """
    with _open(root, name) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(entry.bytes) if size == entry.bytes else b""
    if len(content) != entry.bytes:
        raise ValueError(f"expected {entry.bytes} bytes, found {size}")
    if verify and (found := hashlib.sha256(content).hexdigest()) != entry.sha256:
        raise ValueError(f"expected sha256 {entry.sha256}, found {found}")
    return content


def _open(root: Path, name: str) -> BinaryIO:
    """Open a plain file that lies in the bundle, or in the cache of the hub that the bundle was fetched into.

    Raises:
        ValueError: it lies elsewhere, or is not a plain file.
    """
    try:
        path = (root / name).resolve(strict=True)
    except RuntimeError as error:  # what Python 3.11 and 3.12 raise for a loop of links
        raise ValueError("a link that leads to itself") from error
    if not any(path.is_relative_to(home) for home in _homes(root)):
        raise ValueError("a link that leads out of the bundle")
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("not a plain file")
    return os.fdopen(handle, "rb")


def _homes(root: Path) -> list[Path]:
    """Where a bundle's files may lie: itself, and `blobs` beside the `snapshots` of a Hugging Face cache."""
    return [root, *(parent.parent / "blobs" for parent in root.parents if parent.name == "snapshots")]
