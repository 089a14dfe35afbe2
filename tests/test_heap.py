"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from distill.heap import keep_freed_memory

PROGRAM = """
import sys
from pathlib import Path

import numpy as np

from distill.heap import keep_freed_memory

KEEP = sys.argv[1] == "keep"
assert not KEEP or keep_freed_memory()
PAGE, SIZE = 4096, 200 << 20
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
before = resident()
large = np.ones(SIZE, np.uint8)
held = resident() - before
del large
print(held > 0.9 * SIZE, resident() - before > 0.9 * SIZE)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
@pytest.mark.parametrize(("mode", "kept"), [("keep", True), ("plain", False)])
def test_what_is_freed(mode: str, kept: bool) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["True", str(kept)]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not keep_freed_memory()
