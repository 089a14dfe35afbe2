"""bundle.json, read as if a stranger had written it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Any

from distill.errors import BundleError
from distill.files import parse_json
from distill.task import Task

BUNDLE_FORMAT = 1
MANIFEST = "bundle.json"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8-static", "int8-weights", "int4-weights")
MANIFEST_LIMIT = 4 * 2**20  # bytes; a real one has a few thousand
FILE_LIMIT = 2**31  # bytes; protobuf reads no larger model
NAME_LIMIT = 255  # what file systems take for one name


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The checked content of bundle.json, whose fields all have the types that `Bundle` wants.

    Raises:
        BundleError: not JSON, of a newer format, or naming every field that does not fit.
    """
    value = _parse(data)
    _check_format(value)
    problems = _field_problems(value) + _file_problems(value.get("files"), value.get("model"))
    try:
        task = Task.from_json(value.get("task"))
    except ValueError as error:
        raise BundleError(f"{MANIFEST} does not hold a bundle", [*problems, f"task: {error}"]) from error
    if problems:
        raise BundleError(f"{MANIFEST} does not hold a bundle", problems)
    return {**value, "task": task}


def _parse(data: bytes) -> dict[str, Any]:
    """Strict JSON, an object, and text that can be printed and used as a file's name."""
    try:
        value = parse_json(data)
    except ValueError as error:
        raise BundleError(f"{MANIFEST} cannot be read: {error}; copy the bundle again") from error
    if not isinstance(value, dict):
        raise BundleError(f"{MANIFEST} cannot be read: expected a JSON object, found {type(value).__name__}")
    if re.search(rb"\\u[dD][89a-fA-F]", data) and _has_surrogate(value):
        raise BundleError(f"{MANIFEST} cannot be read: it holds half a character (a lone surrogate)")
    return value


def _has_surrogate(value: object) -> bool:
    """Whether some text in these JSON values cannot be written as UTF-8."""
    if isinstance(value, str):
        return any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return any(_has_surrogate(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_has_surrogate(part) for part in value)


def _check_format(value: dict[str, Any]) -> None:
    """Refuse formats that this potstill was not written for."""
    number = value.get("format")
    if not _is_whole(number, 1):
        raise BundleError(f"{MANIFEST} has no format number: expected {BUNDLE_FORMAT}, found {number!r}")
    if number != BUNDLE_FORMAT:
        writer = str(value.get("potstill", "a newer version"))[:40]
        raise BundleError(
            f"{MANIFEST} has format {number}, this potstill reads format {BUNDLE_FORMAT}: "
            f"pip install --upgrade potstill (it was written by {writer})"
        )


def _field_problems(value: dict[str, Any]) -> list[str]:
    """Every field but `task` and `files` that does not fit."""
    precision = value.get("precision")
    checks = [
        (isinstance(value.get("potstill"), str), "potstill: expected the version that wrote it"),
        (precision in PRECISIONS, f"precision: expected one of {', '.join(PRECISIONS)}, found {precision!r}"),
        (isinstance(value.get("model"), str), "model: expected the name of the .onnx file"),
        (_is_whole(value.get("opset"), 1), "opset: expected a whole number"),
        (isinstance(value.get("cpu"), dict), "cpu: expected an object"),
        (isinstance(value.get("details"), dict), "details: expected an object"),
    ]
    checks += [(_are_names(value.get(key)), f"{key}: expected different names") for key in ("inputs", "outputs")]
    return [problem for fits, problem in checks if not fits]


def _file_problems(files: object, model: object) -> list[str]:
    """Every entry of `files` that does not fit, and every needed file that has none."""
    if not isinstance(files, dict):
        return ["files: expected an object of names with bytes and sha256"]
    problems = [problem for name, entry in files.items() for problem in _entry_problems(name, entry)]
    folded: dict[str, str] = {}
    for name in files:
        other = folded.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            problems.append(f"files: {other!r} and {name!r} are one file on some systems")
    needed = [name for name in (model, TOKENIZER, CONFIG) if isinstance(name, str)]
    return problems + [f"files: {name!r} is not listed" for name in needed if name not in files]


def _entry_problems(name: str, entry: object) -> list[str]:
    """What is wrong with one listed file."""
    problems = [] if is_safe_name(name) else [f"files: {name!r} is not a plain relative name"]
    if not isinstance(entry, dict) or not _is_size(entry.get("bytes")) or not _is_hash(entry.get("sha256")):
        problems.append(f"files: {name!r} has no bytes (below 2 GiB) and sha256")
    return problems


def is_safe_name(name: str) -> bool:
    """Whether this is a relative name that stays inside its folder on every system."""
    if re.search(r"[\x00-\x1f\x7f\\:*?\"<>|]", name) or name.casefold() == MANIFEST:
        return False
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) <= NAME_LIMIT for part in parts)
    return plain and not PurePosixPath(name).is_absolute()


def _are_names(value: object) -> bool:
    """Whether this is a list of at least one name, each once."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        return False
    return 0 < len(value) == len(set(value))


def _is_size(value: object) -> bool:
    """Whether this can be a file's size in bytes."""
    return isinstance(value, int) and _is_whole(value, 0) and value < FILE_LIMIT


def _is_hash(value: object) -> bool:
    """Whether this is a sha256 in hex."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _is_whole(value: object, least: int) -> bool:
    """Whether this is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
