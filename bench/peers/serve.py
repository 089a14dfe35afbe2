"""A peer's side of the talk: one question a line, one answer a line, both JSON. Runs in the peer's environment."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class Classifier(Protocol):
    """An open classifier. Ids and mask are `(rows, length)`."""

    def logits(self, ids: Ids, mask: Ids) -> list[list[float]]:
        """Logits `(rows, labels)`."""


class Translator(Protocol):
    """An open translator. Ids and mask are `(rows, length)`."""

    def translate(self, ids: Ids, mask: Ids, beams: int, least: int, most: int) -> list[list[int]]:
        """The tokens of the best translation of each row, the end left out: at least and at most so many."""


Peer = Classifier | Translator
Opener = Callable[[Path, str, int], Peer]
Preparer = Callable[[Path, Path, str, Path | None], None]


def main(open_model: Opener, prepare: Preparer) -> None:
    """`serve FOLDER PRECISION THREADS`, or `prepare SOURCE TARGET PRECISION [CALIBRATION]`."""
    kind, *words = sys.argv[1:]
    if kind == "prepare":
        prepare(Path(words[0]), Path(words[1]), words[2], Path(words[3]) if len(words) > 3 else None)
    else:
        _serve(lambda: open_model(Path(words[0]), words[1], int(words[2])))


def _serve(open_model: Callable[[], Peer]) -> None:
    """Answer until there are no more questions; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    model = open_model()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        try:
            found = _answer(model, json.loads(line))
        except Exception:  # whatever it is, the other side says it
            found = {"error": traceback.format_exc(limit=3)}
        print(json.dumps(found), file=answers)


def _answer(model: Peer, question: dict[str, Any]) -> dict[str, Any]:
    """One answer, and the milliseconds that it took; what stands beside ids and mask are the rules of a translation."""
    ids, mask = (np.asarray(question.pop(name), np.int64) for name in ("ids", "mask"))
    work = getattr(model, "translate" if question else "logits")
    start = time.perf_counter_ns()
    found = work(ids, mask, **question)
    return {"milliseconds": (time.perf_counter_ns() - start) / 1e6, "answer": found}
