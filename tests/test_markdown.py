"""The tables: what stands in them, and the words that may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.markdown import markdown, table
from bench.words import megabytes, ms
from distill.report import Latency, LayerCost, Memory, Parity, Quality, Report, Size

pytestmark = pytest.mark.runtime


def example() -> Report:
    """A teacher and its bundle in two cells: the bundle is surely faster in one, not told apart in the other."""
    score = Quality("teacher", "torch", "fp32", "test", "accuracy", 0.861, 0.836, 0.883, 853, "s")
    small = replace(
        score, model="bundle", runtime="onnxruntime", precision="int8", method="static", value=0.842, low=0.816,
        high=0.865, baseline="teacher torch fp32", difference=-0.019, difference_low=-0.035, difference_high=-0.003,
        flipped=51,
    )  # fmt: skip
    slow = Latency(
        "teacher", "torch", "fp32", "cpu", 1, 1, 64, 20.0, 22.0, 23.0, 50.0, 200, p50_low_ms=19.5, p50_high_ms=20.5
    )
    quick = replace(
        slow, model="bundle", runtime="onnxruntime", precision="int8", method="static", p50_ms=4.0, p50_low_ms=3.9,
        p50_high_ms=4.1, per_second=250.0, baseline="teacher torch fp32", speedup=5.0, speedup_low=4.8,
        speedup_high=5.2,
    )  # fmt: skip
    return Report(
        name="sentiment",
        environment={"cpu": "Some CPU", "cores": 2, "flags": ["avx2", "avx512_vnni"], "versions": {"numpy": "2.4.6"}},
        quality=(score, small),
        latency=(
            slow,
            quick,
            replace(slow, batch=8, p50_ms=100.0, p50_low_ms=80.0, p50_high_ms=130.0),
            replace(
                quick,
                batch=8,
                p50_ms=95.0,
                p50_low_ms=85.0,
                p50_high_ms=120.0,
                speedup=1.05,
                speedup_low=0.9,
                speedup_high=1.2,
            ),
        ),
        size=(
            Size("teacher", "fp32", 90_900_000, "torch"),
            Size("bundle", "int8", 17_600_000, "onnxruntime", "static"),
        ),
        memory=(Memory("bundle", 122_400_000, "onnxruntime", "int8", "static", 65_100_000, 136.4),),
        parity=(Parity("student onnx fp32", "bundle onnx int8 static", 0.988, 853, 0.063),),
        notes=("a note",),
    )


LINES = [
    "# sentiment",
    "- **bundle onnxruntime int8 static**: 5.00 times [4.80, 5.20] the speed of teacher torch fp32 (faster) at "
    "batch 1, 64 tokens, 1 thread; accuracy 0.842, difference -1.90 [-3.50, -0.30] points (worse)",
    "| bundle onnxruntime int8 static | test | accuracy | 0.8420 [0.8160, 0.8650] | 853 | "
    "-1.90 [-3.50, -0.30] | 51 (6.0%) | worse |",
    "### cpu, 1 thread, fixed ids (batch x tokens)",
    "| model | 1 x 64 | 8 x 64 |",
    "| teacher torch fp32 | 20.0 | 100 |",
    "| bundle onnxruntime int8 static | **4.00** (5.00x) | 95.0 (~1.05x) |",
    "| bundle onnxruntime int8 static | 17.6 | - | 19.4% |",
    "| bundle onnxruntime int8 static | 122.4 | 65.1 | 136 |",
    "| student onnx fp32 | bundle onnx int8 static | 0.063 | 98.80% | 853 |",
    "- a note",
    "| flags | avx2, avx512_vnni |",
    "| numpy version | 2.4.6 |",
]


@pytest.mark.parametrize("line", LINES)
def test_lines(line: str) -> None:
    assert line in markdown(example()).splitlines()


def test_layers_of_the_first_and_the_last_bundle() -> None:
    teacher = LayerCost(
        "teacher", "fp32", "encoder.0", 4_000_000, 1_000_000, 4, 0, 2.0, 1.0, runtime="onnxruntime", heads=12,
        batch=1, length=64, runs=30,
    )  # fmt: skip
    student = replace(teacher, model="student", ms=1.5)
    bundle = replace(
        teacher, model="bundle", precision="int8", method="dynamic", bytes=1_000_000, int8_products=4, ms=0.5, heads=9
    )
    lines = markdown(replace(example(), layers=(teacher, student, bundle))).splitlines()
    assert "## Layers" in lines
    assert "teacher onnxruntime fp32 → bundle onnxruntime int8 dynamic" in lines
    wanted = "| encoder.0 | 12 → 9 | 4.00 → 1.00 (-75%) | 1,000,000 | 0 of 4 → 4 of 4 | 2.00 → 0.50 (-75%) | 100.0% |"
    assert wanted in lines
    assert "- removed: encoder: 12 → 9 heads" in lines
    one = markdown(Report("one", layers=(bundle,)))
    assert "| encoder.0 | 9 | 1.00 | 1,000,000 | 4 of 4 | 0.50 | 100.0% |" in one and "removed" not in one


def test_nothing_is_ranked_where_the_machine_was_busy() -> None:
    report = example()
    busy = tuple(replace(row, reason="the machine was busy") for row in report.latency)
    text = markdown(replace(report, latency=busy))
    assert "**4.00**" not in text
    assert "(faster)" not in text
    assert "4.00 (?5.00x)" in text
    assert "(not judged)" in text


def test_nothing_is_ranked_where_intervals_meet() -> None:
    text = markdown(replace(example(), latency=example().latency[2:]))
    assert "**9" not in text
    assert "(faster)" not in text
    assert "(not told apart)" in text


def test_an_empty_report_is_a_page_too() -> None:
    assert markdown(Report("empty")) == "# empty\n"
    assert "## Latency" not in markdown(replace(example(), latency=()))


def test_tables_hold_what_stands_in_cells() -> None:
    assert table(["a", "b"], [["x|y", "1\n2"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 2 |"
    assert table(["a"], []) == ""


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123")])
def test_milliseconds(value: float | None, text: str) -> None:
    assert ms(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0, "0.0"), (12_345_678, "12.3")])
def test_megabytes(value: int | None, text: str) -> None:
    assert megabytes(value) == text
