"""The two int8 forms of a graph: ranges taken from each input as it comes, or fixed beforehand on training text.

Only products with a stored weight and embedding tables are quantized. Attention's products of two activations stay
float: they are a few per cent of the time, and the mask's -3.4e38 has no place in an int8 range. Each output channel
has a scale of its own: with one scale a matrix and 7-bit weights a sentiment student lost 4.5 points. So has each
column of an embedding table: with one scale a table, the table alone made half of all int8 error.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from compress.quantization.operators import LARGEST, LEAST_OPSET, Int8, rounded
from compress.quantization.ranges import Range
from compress.quantization.watch import Batch, products
from export.encoder.build import build_classifier
from export.graphs.plan import has_plan, read_plan
from export.graphs.products import PRODUCTS
from export.graphs.writer import opset_of
from export.rewrite import strip

REDUCE_RANGE = True
"""7-bit weights: sums of 8-bit ones overflow on x86 without VNNI, and the same bundle answers differently there."""
NOTHING: frozenset[str] = frozenset()


def dynamic(graph: onnx.ModelProto, left_float: Collection[str] = NOTHING) -> onnx.ModelProto:
    """int8 weights; each activation gets its range while the model runs, so an answer depends on its batch.

    A graph with a plan is written anew in onnxruntime's own operators, others are rewritten node by node. The products
    that are `left_float` stay as they are.
    """
    if has_plan(graph):
        form = partial(Int8, left_float=frozenset(left_float))
        return build_classifier(*read_plan(graph), max(opset_of(graph), LEAST_OPSET), form)
    with _output() as path:
        quantize_dynamic(
            tables(graph),
            path,
            op_types_to_quantize=sorted(PRODUCTS),
            per_channel=True,
            reduce_range=REDUCE_RANGE,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_nodes(graph, left_float),
            extra_options={"MatMulConstBOnly": True},
        )
        return _read(path)


def tables(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with int8 embedding tables, a scale a column; rows are looked up in int8 and become float afterwards."""
    found = _copy(graph)
    stored = {value.name: value for value in found.graph.initializer if len(value.dims) == 2}
    lookups = [node for node in found.graph.node if node.op_type == "Gather" and node.input[0] in stored]
    for table in {node.input[0]: stored[node.input[0]] for node in lookups}.values():
        _shrink(found.graph, table)
    for node in lookups:
        _look_up(found.graph, node)
    return found


def _shrink(graph: onnx.GraphProto, table: onnx.TensorProto) -> None:
    """Put int8 values and the scales of their columns in the place of a table `(rows, columns)`."""
    name, (values, scale) = table.name, rounded(numpy_helper.to_array(table), 0, LARGEST)
    table.CopyFrom(numpy_helper.from_array(values, f"{name}_quantized"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))


def _look_up(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Make floats of the int8 rows that a node gathers."""
    name, output = node.input[0], node.output[0]
    node.input[0], node.output[0] = f"{name}_quantized", f"{output}_rows"
    place = next(index for index, other in enumerate(graph.node) if other == node) + 1
    cast = helper.make_node("Cast", [f"{output}_rows"], [f"{output}_float"], to=onnx.TensorProto.FLOAT)
    scaled = helper.make_node("Mul", [f"{output}_float", f"{name}_scale"], [output])
    graph.node.insert(place, scaled)
    graph.node.insert(place, cast)


def static(
    graph: onnx.ModelProto,
    batches: Iterable[Batch],
    left_float: Collection[str] = NOTHING,
    ranges: Mapping[str, Range] | None = None,
) -> onnx.ModelProto:
    """int8 weights and fixed ranges: the smallest and largest value on `batches`. No answer depends on its batch.

    Outputs of products stay float: quantizing those too costs accuracy and, with the residuals float, time. The
    products that are `left_float` stay as they are. `ranges`, where given, take the place of the extremes.
    """
    return _with_ranges(tables(graph), batches, QuantType.QUInt8, REDUCE_RANGE, left_float, ranges, {})


def symmetric(
    graph: onnx.ModelProto,
    batches: Iterable[Batch],
    left_float: Collection[str] = NOTHING,
    ranges: Mapping[str, Range] | None = None,
) -> onnx.ModelProto:
    """The same for TensorRT: ranges around zero and weights of 8 bits. Tables stay float, it has no int8 look-ups."""
    around_zero = {"ActivationSymmetric": True, "WeightSymmetric": True}
    return _with_ranges(_copy(graph), batches, QuantType.QInt8, False, left_float, ranges, around_zero)


def _with_ranges(
    graph: onnx.ModelProto,
    batches: Iterable[Batch],
    activations: QuantType,
    reduce_range: bool,
    left_float: Collection[str],
    ranges: Mapping[str, Range] | None,
    options: Mapping[str, bool],
) -> onnx.ModelProto:
    """Products between pairs of quantizing and dequantizing nodes, with ranges from `batches`."""
    given = {name: [_override(*found)] for name, found in (ranges or {}).items()}
    with _output() as path:
        quantize_static(
            graph,
            path,
            _Batches(batches if ranges is None else islice(batches, 1)),  # which it asks for all the same
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(PRODUCTS),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=[*_of_activations(graph), *_nodes(graph, left_float)],  # it knows no `MatMulConstBOnly`
            extra_options={
                "OpTypesToExcludeOutputQuantization": sorted(PRODUCTS),
                "TensorQuantOverrides": given,
                **options,
            },
        )
        return _rounded_for_products(_read(path))


def _override(low: float, high: float) -> dict[str, np.float32]:
    """A range as onnxruntime takes it."""
    return {"rmin": np.float32(low), "rmax": np.float32(high)}


def _of_activations(graph: onnx.ModelProto) -> list[str]:
    """The names of the products that have no stored weight: attention's."""
    stored = {value.name for value in graph.graph.initializer}
    return [node.name for node in graph.graph.node if node.op_type in PRODUCTS and node.input[1] not in stored]


def _nodes(graph: onnx.ModelProto, names: Collection[str]) -> list[str]:
    """The nodes of the products of these names."""
    return [product.node for product in products(graph) if product.name in names] if names else []


def _rounded_for_products(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Let all but products read values as they were before rounding; onnxruntime gives sums the rounded ones, too."""
    made = {output: node for node in graph.graph.node for output in node.output}
    for node in graph.graph.node:
        if node.op_type in (*PRODUCTS, "QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            if name in made and made[name].op_type == "DequantizeLinear" and made[name].input[0] in made:
                node.input[index] = made[made[name].input[0]].input[0]
    return graph


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
    with unlogged(), tempfile.TemporaryDirectory(prefix="potstill-") as folder:
        yield Path(folder) / "model.onnx"


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """While entered, what libraries log below an error stays unsaid."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
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
