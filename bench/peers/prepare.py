"""A model's weights in the form that each peer wants, made by the peer itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.candidates import PEER, SOURCE, TASK, Candidate, from_folder, task_of
from bench.peers.environments import PEERS, command
from distill import files
from distill.errors import MissingExtraError, RecipeError, RunError
from distill.task import Task
from export.bundle import read_bundle
from export.manifest import CONFIG, TOKENIZER
from export.texts import Text, open_reader, read_limits

OWN_KEYS = "potstill_"
CALIBRATION = 300
"""Training texts that static int8 takes its ranges from; NNCF's own default."""


def peers_of(
    candidates: Sequence[Candidate], names: Sequence[str], texts: Sequence[Text], target: Path
) -> tuple[list[Candidate], list[str]]:
    """Peers of what was measured last, in int8, in folders of `target`; and notes on those that cannot be had.

    Their weights are those of the last checkpoint among `candidates`, which is also there as an fp32 bundle. `texts`
    are training texts.

    Raises:
        RecipeError: there is no checkpoint, or no fp32 bundle.
    """
    checkpoint, bundle = _last(candidates, "torch"), _last(candidates, "onnxruntime")
    task = task_of(checkpoint)
    found, notes = [], []
    for name in (name for name in names if name in PEERS):
        if task is None or task.kind not in PEERS[name].kinds:
            notes.append(f"{name} left out: it is compared in {', '.join(PEERS[name].kinds)} alone")
            continue
        if PEERS[name].source == "checkpoint" and _is_resized(checkpoint.folder):
            notes.append(f"{name} left out: it cannot build layers that potstill made smaller")
            continue
        try:
            folder = make_peer(name, "int8", task, checkpoint.folder, bundle.folder, texts, target / name)
            found.append(from_folder(folder, checkpoint.model))
        except (MissingExtraError, RunError) as error:
            notes.append(f"{name} left out: {error}")
    return found, notes


def _is_resized(checkpoint: Path) -> bool:
    """Whether transformers alone would build another model than this one: its config has keys of potstill's."""
    return any(key.startswith(OWN_KEYS) for key in files.read_json(checkpoint / CONFIG))


def _last(candidates: Sequence[Candidate], runtime: str) -> Candidate:
    """The last fp32 model in this runtime.

    Raises:
        RecipeError: there is none.
    """
    found = [each for each in candidates if each.runtime == runtime and each.precision == "fp32"]
    if not found:
        kind = "a checkpoint" if runtime == "torch" else "an fp32 bundle"
        raise RecipeError(f"peers are made from a checkpoint and its fp32 bundle: {kind} is missing")
    return found[-1]


def make_peer(
    name: str, precision: str, task: Task, checkpoint: Path, bundle: Path, texts: Sequence[Text], folder: Path
) -> Path:
    """Make one peer's folder, and return it.

    Raises:
        MissingExtraError: the peer is not installed.
        RunError: it failed, or `folder` exists.
    """
    source = checkpoint if PEERS[name].source == "checkpoint" else read_bundle(bundle).model_path
    with files.new_folder(folder) as place, tempfile.TemporaryDirectory(prefix="potstill-") as work:
        rows = Path(work) / "calibration.jsonl"
        shutil.copyfile(checkpoint / TOKENIZER, place / TOKENIZER)
        shutil.copyfile(checkpoint / CONFIG, place / SOURCE)
        files.write_json(place / TASK, task.to_json())
        files.write_json(place / PEER, {"peer": name, "precision": precision})
        rows.write_text(_calibration(place, task, texts), encoding="utf-8")
        words, environment = command(name, "prepare", str(source), str(place), precision, str(rows))
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RunError(f"{name} cannot convert {source}: {' '.join(done.stderr.split()[-60:])}")
    return folder


def _calibration(folder: Path, task: Task, texts: Sequence[Text]) -> str:
    """The ids of some texts, a line each."""
    limits = read_limits((folder / SOURCE).read_bytes())
    reader = open_reader((folder / TOKENIZER).read_bytes(), limits, task, parallel=False)
    return "".join(json.dumps(each.ids) + "\n" for each in reader.read(list(texts[:CALIBRATION])))
