"""Peak memory: fresh processes, and what is read when there is no status file."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from onnx_bytes import GOLDEN, GOLDEN_INT8

from bench.candidates import Candidate, from_bundle
from bench.memory import ROOT, load_and_answer, measure_memory, peak_bytes
from distill.errors import RunError

pytestmark = pytest.mark.runtime


TRANSLATION = GOLDEN.parent / "golden-translation"


@pytest.mark.parametrize("folder", [GOLDEN, GOLDEN_INT8, TRANSLATION])
def test_a_bundle_in_a_fresh_process(folder: Path) -> None:
    row = measure_memory(from_bundle("bundle", folder), threads=1, batch=2, length=8)
    assert (row.model, row.runtime, row.threads, row.batch, row.length) == ("bundle", "onnxruntime", 1, 2, 8)
    assert row.import_bytes is not None
    assert 10_000_000 < row.import_bytes <= row.peak_bytes
    assert row.load_ms is not None
    assert row.load_ms > 0


def test_that_process_never_imports_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from bench.memory import load_and_answer;"
        "load_and_answer('onnxruntime', 'fp32', Path(sys.argv[1]), 1, 1, 8);"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(GOLDEN)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
def test_torch_takes_part_too(request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("tiny_checkpoint")
    row = measure_memory(Candidate("student", "torch", "fp32", folder), threads=1, batch=1, length=8)
    assert row.peak_bytes > 50_000_000


def test_what_fails_there_is_said_here(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gone torch int8: measuring its memory failed"):
        measure_memory(Candidate("gone", "torch", "int8", tmp_path), 1, 1, 8)


def test_what_is_measured_is_json() -> None:
    found = load_and_answer("onnxruntime", "fp32", GOLDEN, 1, 1, 8)
    assert json.loads(json.dumps(found)).keys() == {"peak_bytes", "import_bytes", "load_ms"}


def test_peak_from_the_status_file_or_from_the_system(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\n")
    assert peak_bytes(status) == 2048 * 1024
    assert peak_bytes(tmp_path / "absent") > 1_000_000
