"""The int8 form of a translation graph: int8 products with stored weights, one int8 embedding matrix for all uses.

The graph is written anew from its plan, in the operators of `compress.quantization.operators`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import MappingProxyType

import onnx

from compress.quantization.folder import seal_quantized, write_parts
from compress.quantization.operators import Int8
from compress.quantization.products import TRANSLATION_PLACES, bytes_by_part, count_products
from distill.files import new_folder
from export.bundle import Bundle, read_bundle
from export.graphs.plan import Weights, read_plan
from export.graphs.writer import opset_of
from export.seq2seq.build import build

NOTHING: Weights = MappingProxyType({})


def write_int8(bundle: Bundle, target: Path, shortlist: Weights = NOTHING) -> Bundle:
    """Write the int8 form of an fp32 translation bundle as the bundle `target`. What it lost is for a gate to judge.

    Raises:
        BundleError: the bundle holds another kind of graph.
        RunError: `target` exists.
    """
    before = onnx.load(bundle.model_path)
    after = quantize_translation(before, shortlist)
    sizes = {name: bytes_by_part(m.graph, TRANSLATION_PLACES) for name, m in (("fp32", before), ("int8", after))}
    found = {"method": "dynamic", "products": str(count_products(after.graph)), "bytes": sizes}
    with new_folder(target) as folder:
        write_parts(folder, bundle, after, "dynamic")
        seal_quantized(folder, bundle, "dynamic", {**bundle.details, "quantization": found})
    return read_bundle(target, verify=False)


def quantize_translation(
    model: onnx.ModelProto, shortlist: Weights = NOTHING, left_float: frozenset[str] = frozenset()
) -> onnx.ModelProto:
    """The int8 form of a graph that `export.seq2seq.build` wrote, if wanted with a shortlist.

    The products that are `left_float` stay as they are.

    Raises:
        BundleError: another graph.
    """
    plan, weights = read_plan(model)
    return build(plan, {**weights, **shortlist}, opset_of(model), partial(Int8, left_float=left_float))
