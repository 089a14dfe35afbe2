"""The two int8 forms of a graph: ranges taken from each input as it comes, or fixed beforehand on training text.

Only products with a stored weight and embedding tables are quantized. Attention's products of two activations stay
float: they are a few per cent of the time, and the mask's -3.4e38 has no place in an int8 range. Each output channel
has a scale of its own: with one scale a matrix and 7-bit weights a sentiment student lost 4.5 points.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from export.rewrite import strip

REDUCE_RANGE = True
"""7-bit weights: sums of 8-bit ones overflow on x86 without VNNI, and the same bundle answers differently there."""
PRODUCTS = ("MatMul", "Gemm")
TABLES = ("Gather",)

Batch = Mapping[str, NDArray[np.int64]]


def dynamic(graph: onnx.ModelProto) -> onnx.ModelProto:
    """int8 weights; each activation gets its range while the model runs, so an answer depends on its batch."""
    return _dynamic(graph, (*PRODUCTS, *TABLES))


def _dynamic(graph: onnx.ModelProto, kinds: tuple[str, ...]) -> onnx.ModelProto:
    """Quantize nodes of these kinds dynamically."""
    with _output() as path:
        quantize_dynamic(
            _copy(graph),
            path,
            op_types_to_quantize=list(kinds),
            per_channel=True,
            reduce_range=REDUCE_RANGE,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return _read(path)


def static(graph: onnx.ModelProto, batches: Iterable[Batch]) -> onnx.ModelProto:
    """int8 weights and fixed ranges: the smallest and largest value on `batches`. No answer depends on its batch.

    Outputs of products stay float: quantizing those too costs accuracy and, with the residuals float, time.
    Percentiles instead of the extremes were no better at 99.999 and worse below.
    """
    with _output() as path:
        quantize_static(
            _dynamic(graph, TABLES),
            path,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            per_channel=True,
            reduce_range=REDUCE_RANGE,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": list(PRODUCTS)},
        )
        return _read(path)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Calibration batches in the form that onnxruntime asks for."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.int64]] | None:
        """The next batch, or None when there are no more."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


@contextlib.contextmanager
def _output() -> Iterator[Path]:
    """A place for onnxruntime to write to, while its advice to pre-process the graph (done in export) stays unsaid."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
            yield Path(folder) / "model.onnx"
    finally:
        logging.disable(before)


def _copy(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy: onnxruntime quantizes in place."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    return copy


def _read(path: Path) -> onnx.ModelProto:
    """What onnxruntime wrote, without its comments and shapes."""
    graph = onnx.load(path)
    strip(graph)
    return graph
