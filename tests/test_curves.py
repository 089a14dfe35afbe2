"""Curves of latency: which rows become one, and that the picture is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_markdown import example

from bench.curves import panels, write_curves
from distill.report import Latency, Report

ROW = replace(example().latency[0], model="m")


def report(*rows: Latency) -> Report:
    return Report("r", latency=rows)


def at(length: int, ms: float, batch: int = 1, **changes: object) -> Latency:
    return replace(ROW, length=length, batch=batch, p50_ms=ms, p50_low_ms=ms * 0.9, p50_high_ms=ms * 1.1, **changes)  # type: ignore[arg-type]


def test_lengths_and_batches_by_hand() -> None:
    rows = [at(16, 2), at(64, 4), at(256, 18), at(16, 10, 8), at(16, 30, 32), at(64, 99, 8)]
    lengths, batches = panels(report(*rows))
    assert (lengths.across, lengths.still) == ("tokens a row", "batch 1, 1 thread")
    assert lengths.curves[0].sizes == (16, 64, 256)
    assert [each.value for each in lengths.curves[0].latency] == [2, 4, 18]
    assert (batches.across, batches.still) == ("rows a batch", "16 tokens, 1 thread")
    assert batches.curves[0].sizes == (1, 8, 32)


def test_translation_has_one_panel() -> None:
    rows = [
        at(30, ms, batch, work="text", beams=beams) for beams in (1, 4) for batch, ms in ((1, 9), (8, 30), (32, 80))
    ]
    (panel,) = panels(report(*rows))
    assert (panel.across, panel.still) == ("real texts a batch", "greedy, 1 thread")
    assert len(panel.curves) == 1


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [at(16, 2), at(64, 4)],
        [at(16, 2), at(64, 4, threads=2), at(128, 8)],
        [at(n, n, device="cuda") for n in (1, 2, 3)],
    ],
)
def test_nothing_to_draw(rows: list[Latency]) -> None:
    assert panels(report(*rows)) == []


def test_the_picture_is_one(tmp_path: Path) -> None:
    rows = [at(length, length / 8, model=name) for name in ("$a_1$", "b & <c>") for length in (16, 64, 256)]
    found = panels(report(*rows))
    write_curves(found, tmp_path / "curves.png", "$x$")
    data = (tmp_path / "curves.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000
