"""Progress: plain lines where stderr is no terminal, a bar where it is one, nothing when asked to be quiet."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from distill.progress import Bars, silent


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def tell(quiet: bool = False) -> None:
    with Bars(quiet) as bars:
        for done in range(9):
            bars("teach", done, 8)


def test_lines_at_the_start_and_at_each_quarter(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "potstill"):
        tell()
    assert caplog.messages == [f"teach: {done} of 8" for done in (0, 2, 4, 6, 8)]


def test_each_label_has_its_own_quarters(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "potstill"), Bars() as bars:
        bars("a", 1, 1)
        bars("b", 1, 1)
        bars("a", 1, 1)
    assert caplog.messages == ["a: 1 of 1", "b: 1 of 1"]


def test_no_units_at_all(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "potstill"), Bars() as bars:
        bars("label", 0, 0)
    assert caplog.messages == ["label: 0 of 0"]


def test_quiet(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO, "potstill"):
        tell(quiet=True)
        silent("teach", 1, 2)
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    with caplog.at_level(logging.INFO, "potstill"):
        tell()
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "teach" in shown and "8/8" in shown and "\x1b[" in shown
    assert caplog.messages == []


def test_no_color_draws_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    tell()
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "8/8" in shown and "\x1b[3" not in shown.replace("\x1b[3m", "")
