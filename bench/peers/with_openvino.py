"""OpenVINO: an fp32 bundle's graph, in int8 by NNCF. Runs in the peer's environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.serve import Ids, main

FILE = "openvino_model.xml"


class Model:
    """An open classifier."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import openvino

        hints = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        self.compiled = openvino.Core().compile_model(str(folder / FILE), "CPU", hints)
        self.request = self.compiled.create_infer_request()
        self.names = [node.get_any_name() for node in self.compiled.inputs]

    def logits(self, ids: Ids, mask: Ids) -> list[list[float]]:
        """Logits `(rows, labels)`."""
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        self.request.infer({name: feed[name] for name in self.names}, share_inputs=True)
        found: list[list[float]] = self.request.get_output_tensor(0).data.tolist()
        return found


def prepare(source: Path, target: Path, precision: str, calibration: Path | None) -> None:
    """Convert the ONNX file `source`; for int8 with the ranges of the rows in `calibration`."""
    import openvino

    model = openvino.convert_model(str(source))
    if precision == "int8":
        assert calibration is not None
        model = _int8(model, calibration)
    openvino.save_model(model, str(target / FILE), compress_to_fp16=False)


def _int8(model: Any, calibration: Path) -> Any:
    """Static int8 as NNCF's documentation has it for transformers."""
    import nncf

    names = [node.get_any_name() for node in model.inputs]
    rows = [json.loads(line) for line in calibration.read_text(encoding="utf-8").splitlines()]

    def feed(ids: list[int]) -> dict[str, Any]:
        array = np.asarray([ids], np.int64)
        every = {"input_ids": array, "attention_mask": np.ones_like(array), "token_type_ids": np.zeros_like(array)}
        return {name: every[name] for name in names}

    data = nncf.Dataset(rows, feed)
    return nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))


if __name__ == "__main__":
    main(Model, prepare)
