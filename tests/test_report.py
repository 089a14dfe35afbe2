"""The report's file: strict JSON, all problems at once, and nothing that names the machine's owner."""

from __future__ import annotations

import contextlib
import getpass
import json
import math
import platform
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.environment import cores, cpu_flags, cpu_model, environment
from distill.errors import DataError
from distill.report import (
    ROWS,
    Latency,
    LayerCost,
    Memory,
    Parity,
    Quality,
    Report,
    Size,
    differences,
    from_json,
    merge,
    read_report,
    to_json,
    write_report,
)

pytestmark = pytest.mark.runtime

REPORT = Report(
    name="sentiment",
    environment={"cpu": "Some CPU", "flags": ["avx2"], "threads": 1, "versions": {"numpy": "2"}},
    quality=(Quality("teacher", "torch", "fp32", "test", "accuracy", 0.86, 0.84, 0.88, 853, "metric:accuracy"),),
    latency=(Latency("bundle", "onnxruntime", "int8", "cpu", 1, 1, 64, 2.1, 2.3, 2.6, 476.0, 200),),
    size=(Size("student", "int8", 12345678),),
    memory=(Memory("bundle", 90_000_000, load_ms=12.5),),
    parity=(Parity("student torch", "student onnx fp32", 1.0, 853, 3e-7),),
    layers=(LayerCost("bundle", "int8", "encoder.0", 1_810_944, 1_774_464, 4, 4, 0.56, 0.14, heads=12, zeros=0.03),),
    notes=("a note",),
)

# the flat format as it was promised
PROMISED = {
    "quality": ["model", "runtime", "precision", "split", "metric", "value", "low", "high", "n", "signature"],
    "latency": [
        "model",
        "runtime",
        "precision",
        "device",
        "threads",
        "batch",
        "length",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "per_second",
        "runs",
    ],
    "size": ["model", "precision", "bytes"],
    "memory": ["model", "peak_bytes"],
    "parity": ["a", "b", "agreement", "n", "max_abs"],
    "layers": ["model", "precision", "layer", "bytes", "parameters", "products", "int8_products", "ms", "share"],
}


def test_write_then_read(tmp_path: Path) -> None:
    path = write_report(REPORT, tmp_path / "report")
    assert path == tmp_path / "report" / "report.json"
    assert read_report(path) == REPORT
    assert read_report(path.parent) == REPORT


def test_the_format_is_flat_and_as_promised() -> None:
    value = to_json(REPORT)
    assert list(value) == ["format", "name", "environment", *PROMISED, "notes"]
    for name, keys in PROMISED.items():
        assert list(value[name][0])[: len(keys)] == keys
        assert all(not isinstance(item, dict | list) for item in value[name][0].values())


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_null_with_a_reason(tmp_path: Path, number: float) -> None:
    broken = replace(
        REPORT,
        environment={"load": number, "deep": [{"x": number}]},
        latency=(replace(REPORT.latency[0], p99_ms=number),),
        quality=(replace(REPORT.quality[0], low=number, reason="no examples"),),
    )
    path = write_report(broken, tmp_path)
    value = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert value["latency"][0]["p99_ms"] is None
    assert value["latency"][0]["reason"] == f"p99_ms is {number}"
    assert value["quality"][0]["reason"] == "no examples"
    assert value["environment"] == {"load": None, "deep": [{"x": None}]}
    assert math.isnan(read_report(path).latency[0].p99_ms)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"format": 2}, "format 1, found 2"),
    ({"name": 3}, "name: expected a string"),
    ({"environment": []}, "environment: expected an object"),
    ({"notes": [1]}, "notes: expected a list of strings"),
    ({"size": {}}, "size: expected a list"),
    ({"size": [7]}, r"size\[0\]: expected an object"),
    ({"size": [{"model": "a", "precision": "int8"}]}, r"size\[0\].bytes: missing"),
    ({"size": [{"model": "a", "precision": "int8", "bytes": "1"}]}, r"size\[0\].bytes: expected int, found '1'"),
    ({"size": [{"model": "a", "precision": "int8", "bytes": True}]}, "expected int, found True"),
    ({"memory": [{"model": "a", "peak_bytes": 1, "load_ms": "x"}]}, "load_ms: expected float | None, found 'x'"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_broken_reports_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        from_json({**to_json(REPORT), **change})


def test_all_problems_at_once() -> None:
    with pytest.raises(DataError) as caught:
        from_json({**to_json(REPORT), "name": None, "parity": [{}], "quality": 5})
    assert len(caught.value.problems) == 1 + 4 + 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}', '{"a": 1, "a": 2}', "[" * 100_000])
def test_files_that_are_no_report(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"report\.json"):
        read_report(path)
    with pytest.raises(DataError, match="compress bench"):
        read_report(tmp_path / "nothing")


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from([*ROWS, "format", "name", "environment", "notes", "model"]), inner)
        ),
    )
)
def test_any_json_gives_a_report_or_our_error(value: object) -> None:
    with contextlib.suppress(DataError):
        from_json({"format": 1, "name": "x", "environment": {}, **value} if isinstance(value, dict) else value)


def test_reports_from_before_there_were_layers_are_read() -> None:
    value = to_json(REPORT)
    del value["layers"]
    assert from_json(value) == replace(REPORT, layers=())


def test_fields_of_a_later_release_are_passed_over() -> None:
    value = to_json(REPORT)
    value["size"][0]["zipped"] = 1
    assert from_json(value).size == REPORT.size


def test_merge_replaces_what_was_measured_again() -> None:
    again = replace(REPORT.latency[0], p50_ms=1.9)
    other = replace(again, threads=2)
    merged = merge(REPORT, Report("sentiment", REPORT.environment, latency=(again, other), notes=("a note", "b")))
    assert merged.latency == (again, other)
    assert merged.quality == REPORT.quality
    assert merged.notes == ("a note", "b")


def test_merge_says_when_machines_differ() -> None:
    merged = merge(REPORT, Report("sentiment", {**REPORT.environment, "cpu": "Other", "load": 3.0}))
    assert merged.notes[-1] == "rows were measured in two environments, which differ in: cpu"
    assert differences({"cpu": 1, "load": 1}, {"cpu": 1, "load": 2}) == []
    with pytest.raises(DataError, match="'sentiment' and 'topics'"):
        merge(REPORT, Report("topics"))


def test_every_row_has_a_key_and_a_reason() -> None:
    for name in ROWS:
        row = getattr(REPORT, name)[0]
        assert row.key
        assert "reason" in {item.name for item in fields(row)}


def test_environment_says_what_counts_and_not_who() -> None:
    found = environment(threads=2)
    assert found["threads"] == 2
    assert found["cores"] == cores() >= 1
    assert found["versions"]["numpy"]
    assert {"cpu", "flags", "memory_bytes", "os", "python"} <= found.keys()
    text = json.dumps(found, allow_nan=False)
    assert platform.node() not in text or len(platform.node()) < 3
    assert getpass.getuser() not in text.split('"')
    assert "/" not in text.replace(found["cpu"], "")


CPUS = [
    (
        "model name\t: Fast CPU @ 3GHz\nflags\t\t: fpu avx2 avx512f avx512_vnni hypervisor\n",
        "Fast CPU @ 3GHz",
        ["avx2", "avx512f", "avx512_vnni"],
    ),
    ("processor : 0\nFeatures : fp asimddp i8mm\n", None, ["asimddp", "i8mm"]),
    ("", None, []),
]


@pytest.mark.parametrize(("text", "model", "flags"), CPUS)
def test_processors(tmp_path: Path, text: str, model: str | None, flags: list[str]) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert cpu_flags(path) == flags
    assert cpu_model(path) == (model or platform.processor() or platform.machine())
    assert environment(1, path)["virtual"] == ("hypervisor" in text)
    assert environment(1, tmp_path / "absent")["flags"] == []
