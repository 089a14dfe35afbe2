"""Where the peers' environments are, and starting a process in one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from distill.errors import MissingExtraError

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENTS = ROOT / ".peers"


@dataclass(frozen=True)
class Peer:
    """An engine: its module in this package, the kinds of task that it is made for, and what it is made from."""

    module: str
    kinds: tuple[str, ...]
    source: str


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "openvino": Peer("bench.peers.with_openvino", ("classification",), "bundle"),
        "ctranslate2": Peer("bench.peers.with_ctranslate2", ("translation",), "checkpoint"),
        "optimum": Peer("bench.peers.with_optimum", ("classification", "translation"), "checkpoint"),
    }
)


def command(name: str, *words: str) -> tuple[list[str], dict[str, str]]:
    """The command line of a peer's process, and its environment variables.

    Raises:
        MissingExtraError: the peer was not installed.
    """
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        raise MissingExtraError(f"{name} is not installed beside potstill: run `make peers` in its folder")
    return [str(python), "-m", PEERS[name].module, *words], {**os.environ, "PYTHONPATH": str(ROOT)}
