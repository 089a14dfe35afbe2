"""Running `distill` and `compress` in processes of their own, where chosen modules are as good as not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRAINING = ("torch", "transformers", "datasets", "accelerate", "safetensors", "sklearn", "onnx", "onnxscript")
TRAINING += ("pydantic", "yaml", "rich", "matplotlib", "filelock", "huggingface_hub")
RUNTIME = ("onnxruntime", "numpy", "tokenizers")
START = """
import sys

MISSING = set(sys.argv[1].split(","))

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, NotInstalled())
program = sys.argv[2]
sys.argv = sys.argv[2:]
__import__(program + ".cli", fromlist=["main"]).main()
"""


def command(program: str, *args: object, missing: Sequence[str] = ()) -> list[str]:
    """The command line that runs `program` as if `missing` were not installed."""
    return [sys.executable, "-c", START, ",".join(missing), program, *map(str, args)]


def run(
    program: str,
    *args: object,
    missing: Sequence[str] = (),
    stdin: str | bytes = b"",
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; outputs are decoded as UTF-8."""
    done = subprocess.run(
        command(program, *args, missing=missing),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
