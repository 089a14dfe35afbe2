"""Two processes that share Muon's products move weights exactly as one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

STEPS = """
import sys, torch
from torch import nn
from transformers import TrainingArguments
from distill import processes
from distill.muon import muon

torch.set_num_threads(1)
processes.join()
torch.manual_seed(0)
model = nn.Module()
# Five of one shape, turned or not, so that the parts are uneven; one of another, for which one process has nothing.
sizes = [(16, 32), (32, 16), (16, 32), (32, 16), (16, 32), (8, 8)]
model.layers = nn.ModuleList([nn.Linear(*size) for size in sizes])
optimizer = muon(model, TrainingArguments(output_dir=sys.argv[1], use_cpu=True, report_to="none", learning_rate=0.01))
for _ in range(3):
    for value in model.parameters():
        value.grad = torch.randn(value.shape)
    optimizer.step()
momentum = [state["momentum_buffer"] for state in optimizer.state.values() if "momentum_buffer" in state]
torch.save([*model.parameters(), *momentum], sys.argv[2])
processes.leave()
"""


def steps(folder: Path, count: int, script: str = STEPS) -> list[Path]:
    """Run a script in `count` processes; the files that each of them wrote."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    results = [folder / f"{count}-{rank}.pt" for rank in range(count)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, folder, result],
            env=common | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}),
        )
        for rank, result in enumerate(results)
    ]
    assert [process.wait(timeout=120) for process in running] == [0] * count
    return results


@pytest.mark.parametrize("count", [2, 3])
def test_weights_and_momentum_are_those_of_one_process(count: int, tmp_path: Path) -> None:
    [alone] = [torch.load(path, weights_only=True) for path in steps(tmp_path, 1)]
    for path in steps(tmp_path, count):
        found = torch.load(path, weights_only=True)
        assert len(found) == len(alone) == 2 * 6 + 6
        for value, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
