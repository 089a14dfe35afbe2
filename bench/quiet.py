"""Whether the machine was ours: how many cores other processes took while something was timed.

On a busy machine times do not only grow, they grow unequally: a runtime whose threads wait for each other waits for
the one that is not running (with five processes on two cores torch in two threads took 1.4 s for what takes it 30 ms).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
IDLE = (3, 4)
"""Columns of /proc/stat that count waiting: idle and iowait."""
COUNTED = 8
"""user nice system idle iowait irq softirq steal; what follows is part of user and nice."""


@dataclass(frozen=True)
class Clocks:
    """Seconds so far: by the clock, of all work on the cores this process may use, and of its own."""

    wall: float
    machine: float | None
    own: float


def read_clocks(stat: Path = STAT) -> Clocks:
    """All three clocks now; the machine's is None where the system does not tell."""
    return Clocks(time.perf_counter(), _machine_seconds(stat), time.process_time())


def cores_of_others(before: Clocks, after: Clocks) -> float | None:
    """How many cores other processes, or a hypervisor, took on average between two readings."""
    if before.machine is None or after.machine is None or after.wall <= before.wall:
        return None
    others = (after.machine - before.machine) - (after.own - before.own)
    return round(max(0.0, others / (after.wall - before.wall)), 3)


def too_busy(others: float | None, threads: int, cores: int) -> bool:
    """Whether others took more than half of the cores that were to spare (and a tenth of one, for the system)."""
    return others is not None and others > 0.5 * max(0, cores - threads) + 0.1


def _machine_seconds(stat: Path) -> float | None:
    """Seconds that the cores this process may use did not idle."""
    try:
        lines = stat.read_text(encoding="ascii", errors="replace").splitlines()
        allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
    rows = [fields[1 : COUNTED + 1] for fields in map(str.split, lines) if fields and fields[0] in allowed]
    busy = sum(int(field) for row in rows for column, field in enumerate(row) if column not in IDLE)
    return busy / ticks if rows else None
