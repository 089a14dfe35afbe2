"""The wall: what an app embeds never reaches the training side; rooms import in one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.runtime

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
WALL = next(contract for contract in CONTRACTS if contract["type"] == "forbidden")
BLOCKED_IMPORTS = """
import importlib, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise AssertionError(f"{name} was imported")
        return None

FORBIDDEN = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Block())
for module in sys.argv[2].split(","):
    importlib.import_module(module)
"""


def import_blocked(modules: list[str], forbidden: list[str]) -> str:
    """What importing `modules` says on stderr where `forbidden` cannot be imported."""
    command = [sys.executable, "-c", BLOCKED_IMPORTS, ",".join(forbidden), ",".join(modules)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stderr


def imported(path: Path) -> set[str]:
    """All modules that a file imports, wherever in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_the_blocker_blocks() -> None:
    assert "tomllib was imported" in import_blocked(["tomllib"], ["tomllib"])


@pytest.mark.parametrize("module", ["potstill", *WALL["source_modules"], "distill.cli", "compress.cli", "bench.cli"])
def test_the_wall(module: str) -> None:
    if module == "distill.run":
        pytest.importorskip("filelock", reason="run folders belong to the train extra")
    assert import_blocked([module], WALL["forbidden_modules"]) == ""


def test_the_front_door_opens_only_what_import_linter_watches() -> None:
    watched = tuple(WALL["source_modules"])
    ours = imported(ROOT / "potstill.py") - set(sys.stdlib_module_names)
    assert [name for name in ours if not name.startswith(watched)] == []


def test_no_room_goes_through_the_front_door() -> None:
    rooms = [path for room in ("distill", "export", "bench", "compress") for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in rooms if "potstill" in imported(path)] == []


def test_import_linter() -> None:
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
