"""Optimum: its own export, in int8 by onnxruntime's dynamic scheme. Runs in the peer's environment, with torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.peers.serve import Ids, main

KIND = "kind.json"
TRANSLATION = ("marian", "bart", "mbart", "m2m_100", "t5", "mt5")


class Model:
    """An open classifier or translator."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import onnxruntime
        import torch
        from optimum.onnxruntime import ORTModelForSeq2SeqLM, ORTModelForSequenceClassification

        torch.set_num_threads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        translates = json.loads((folder / KIND).read_text(encoding="utf-8"))["translates"]
        opened = ORTModelForSeq2SeqLM if translates else ORTModelForSequenceClassification
        self.model: Any = opened.from_pretrained(folder, session_options=options)

    def logits(self, ids: Ids, mask: Ids) -> list[list[float]]:
        """Logits `(rows, labels)`."""
        import torch

        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        found: list[list[float]] = self.model(**inputs).logits.tolist()
        return found

    def translate(self, ids: Ids, mask: Ids, beams: int, least: int, most: int) -> list[list[int]]:
        """The tokens of the best translation of each row."""
        import torch

        rows = self.model.generate(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), num_beams=beams,
            min_new_tokens=least, max_new_tokens=most, max_length=None,
            early_stopping=False, length_penalty=1.0, no_repeat_ngram_size=0,
        )  # fmt: skip
        end, pad = self.model.config.eos_token_id, self.model.config.pad_token_id
        return [_until(row[1:].tolist(), {end, pad}) for row in rows]


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens before the first of `ends`."""
    return next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)


def prepare(source: Path, target: Path, precision: str, calibration: Path | None) -> None:
    """Export the checkpoint `source`, and quantize each of its graphs."""
    from optimum.onnxruntime import ORTModelForSeq2SeqLM, ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    translates = config["model_type"] in TRANSLATION
    opened = ORTModelForSeq2SeqLM if translates else ORTModelForSequenceClassification
    model: Any = opened.from_pretrained(source, export=True)
    model.save_pretrained(target)
    (target / KIND).write_text(json.dumps({"translates": translates}), encoding="utf-8")
    if precision == "int8":
        scheme = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
        for graph in sorted(target.glob("*.onnx")):
            ORTQuantizer.from_pretrained(target, file_name=graph.name).quantize(
                save_dir=target, quantization_config=scheme
            )
            graph.with_name(f"{graph.stem}_quantized.onnx").replace(graph)


if __name__ == "__main__":
    main(Model, prepare)
