"""Make the golden translation bundles: `python tests/data/make_golden_translation.py`, in an environment with torch.

As with `make_golden.py`: checked in, one pair per bundle format, and not to be made again for the same one.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from onnx_bytes import reseal  # noqa: E402
from translation_models import toy_sources, write_translator  # noqa: E402

from compress.quantization.translation_int8 import write_int8  # noqa: E402
from distill.data import Split  # noqa: E402
from export.graph import export  # noqa: E402
from export.runtime import Translator, load_as  # noqa: E402

TEXTS = ("", " \t\n ", *toy_sources(8), "Città è \u4f60\u597d \U0001f600", "casa " * 60)


def answers(model: Translator, **options: int) -> list[dict[str, object]]:
    """What the model answers to each text alone."""
    return [asdict(model([text], scores=True, **options)[0]) for text in TEXTS]


def main() -> None:
    """Write both bundles and what they answer."""
    folders = {"fp32": HERE / "golden-translation", "int8-dynamic": HERE / "golden-translation-int8"}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        checkpoint = write_translator(Path(work) / "checkpoint")
        examples = Split(toy_sources(20), None, ())
        write_int8(export(checkpoint, folders["fp32"], opset=20, atol=1e-4, examples=examples), folders["int8-dynamic"])
    for folder in folders.values():
        reseal(folder, cpu={})
    expected: dict[str, object] = {"texts": TEXTS}
    for precision, folder in folders.items():
        model = load_as(Translator, folder, threads=1)
        expected[precision] = {"greedy": answers(model), "beams": answers(model, beams=4, n_best=2)}
    (HERE / "golden-translation-expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
