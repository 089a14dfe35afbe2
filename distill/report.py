"""What is claimed about models: flat rows that a program can filter, in one strict JSON file. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from distill.environment import environment
from distill.errors import DataError
from distill.files import read_json, write_json
from distill.rows import Latency, LayerCost, Memory, Parity, Quality, Size

__all__ = [
    "Latency",
    "LayerCost",
    "Memory",
    "Parity",
    "Quality",
    "Report",
    "Size",
    "differences",
    "environment",
    "from_json",
    "merge",
    "read_report",
    "to_json",
    "write_report",
]

REPORT_FORMAT = 1
REPORT_FILE = "report.json"
ROWS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "quality": Quality,
        "latency": Latency,
        "size": Size,
        "memory": Memory,
        "parity": Parity,
        "layers": LayerCost,
    }
)

Row = TypeVar("Row", Quality, Latency, Size, Memory, Parity, LayerCost)


@dataclass(frozen=True)
class Report:
    """Every number of one run, with the machine it was measured on and what to know before quoting it."""

    name: str
    environment: Mapping[str, Any] = field(default_factory=dict)
    quality: tuple[Quality, ...] = ()
    latency: tuple[Latency, ...] = ()
    size: tuple[Size, ...] = ()
    memory: tuple[Memory, ...] = ()
    parity: tuple[Parity, ...] = ()
    layers: tuple[LayerCost, ...] = ()
    notes: tuple[str, ...] = ()


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.json` into `folder` and return its path; a number that is not finite becomes null with a reason."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT_FILE, to_json(report))
    return folder / REPORT_FILE


def read_report(path: Path) -> Report:
    """Read `report.json`, or the one in the folder `path`; fields of a later potstill are passed over.

    Raises:
        DataError: no such file, not strict JSON, another format, or rows that lack something, all at once.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    try:
        value = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a report: {error}; write one with `compress bench`") from error
    return from_json(value, str(file))


def merge(a: Report, b: Report) -> Report:
    """Both reports as one: `b`'s rows replace those of `a` that measure the same thing.

    Raises:
        DataError: the reports have different names.
    """
    if a.name != b.name:
        raise DataError(f"expected two reports on one run, got {a.name!r} and {b.name!r}")
    differing = differences(a.environment, b.environment)
    notes = [*a.notes, *b.notes]
    if differing:
        notes.append(f"rows were measured in two environments, which differ in: {', '.join(differing)}")
    return Report(
        name=a.name,
        environment=b.environment or a.environment,
        quality=_merged(a.quality, b.quality),
        latency=_merged(a.latency, b.latency),
        size=_merged(a.size, b.size),
        memory=_merged(a.memory, b.memory),
        parity=_merged(a.parity, b.parity),
        layers=_merged(a.layers, b.layers),
        notes=tuple(dict.fromkeys(notes)),
    )


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The keys in which two environments differ; the load of the moment does not count."""
    if not a or not b:
        return []
    return [key for key in sorted(a.keys() | b.keys()) if key != "load" and a.get(key) != b.get(key)]


def _merged(a: Sequence[Row], b: Sequence[Row]) -> tuple[Row, ...]:
    """Rows by their key, in order of first appearance."""
    rows: dict[tuple[object, ...], Row] = {row.key: row for row in a}
    rows.update({row.key: row for row in b})
    return tuple(rows.values())


def to_json(report: Report) -> dict[str, Any]:
    """The report as strict JSON values."""
    rows = {name: [_row_to_json(row) for row in getattr(report, name)] for name in ROWS}
    environment = _finite(dict(report.environment))
    return {
        "format": REPORT_FORMAT,
        "name": report.name,
        "environment": environment,
        **rows,
        "notes": list(report.notes),
    }


def _row_to_json(row: Quality | Latency | Size | Memory | Parity | LayerCost) -> dict[str, Any]:
    """One row without its empty optional fields; null, with the reason, for numbers that are not finite."""
    values = asdict(row)
    broken = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    if broken and not row.reason:
        values = asdict(replace(row, reason="; ".join(f"{name} is {values[name]}" for name in broken)))
    return {name: None if name in broken else value for name, value in values.items() if value is not None}


def _finite(value: Any) -> Any:
    """JSON values in which null stands for every number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(value: object, source: str = "report") -> Report:
    """Read what `to_json` wrote; `source` is named in errors.

    Raises:
        DataError: all that does not fit, at once.
    """
    if not isinstance(value, dict) or value.get("format") != REPORT_FORMAT:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{source}: expected a report of format {REPORT_FORMAT}, found {found!r}")
    problems = _problems(value)
    if problems:
        raise DataError(f"{source}: the report does not fit its format", problems)
    rows = {name: tuple(_row(kind, row) for row in value.get(name, [])) for name, kind in ROWS.items()}
    return Report(name=value["name"], environment=value["environment"], notes=tuple(value.get("notes", [])), **rows)


def _row(kind: type[Any], value: Mapping[str, Any]) -> Any:
    """One row; null in a number that must be there reads as NaN."""
    known = {item.name: value[item.name] for item in fields(kind) if item.name in value}
    empty = {item.name: math.nan if item.default is MISSING else None for item in fields(kind)}
    return kind(**{name: empty[name] if item is None else item for name, item in known.items()})


def _problems(value: Mapping[str, Any]) -> list[str]:
    """Everything in a report's JSON that does not fit."""
    notes = value.get("notes", [])
    problems = [] if isinstance(value.get("name"), str) else ["name: expected a string"]
    problems += [] if isinstance(value.get("environment"), dict) else ["environment: expected an object"]
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        problems.append("notes: expected a list of strings")
    for name, kind in ROWS.items():
        rows = value.get(name, [])
        if not isinstance(rows, list):
            problems.append(f"{name}: expected a list")
            continue
        problems += [
            f"{name}[{number}]{problem}" for number, row in enumerate(rows) for problem in _row_problems(kind, row)
        ]
    return problems


def _row_problems(kind: type[Any], row: object) -> list[str]:
    """What keeps `row` from being a `kind`."""
    if not isinstance(row, dict):
        return [": expected an object"]
    hints, problems = get_type_hints(kind), []
    for item in fields(kind):
        if item.name not in row:
            if item.default is MISSING:
                problems.append(f".{item.name}: missing")
        elif not _fits(row[item.name], hints[item.name]):
            problems.append(f".{item.name}: expected {item.type}, found {row[item.name]!r:.60}")
    return problems


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value can stand in a field; any float may be null."""
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    if isinstance(value, bool):
        return False
    if float in kinds:
        return value is None or isinstance(value, int | float)
    return isinstance(value, kinds)
