"""Measuring what embedding costs; the whole measurement installs packages, so here are its parts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from onnx_bytes import GOLDEN

from bench.startup import _run, folder_bytes, refuse_modules
from distill.errors import RunError
from export.bundle import read_bundle

pytestmark = pytest.mark.runtime


def test_bytes_of_a_folder() -> None:
    assert folder_bytes(GOLDEN) == read_bundle(GOLDEN).bytes + (GOLDEN / "bundle.json").stat().st_size


def test_links_are_not_counted_twice(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "b").symlink_to("a")
    assert folder_bytes(tmp_path) == 4


def test_modules_that_must_not_be_there() -> None:
    refuse_modules(Path(sys.executable), ["no_such_module"])
    with pytest.raises(RunError, match="holds json, csv, which only training needs"):
        refuse_modules(Path(sys.executable), ["json", "no_such_module", "csv"])


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"failed: .*ValueError: because"):
        _run([sys.executable, "-c", "raise ValueError('because')"], tmp_path)
