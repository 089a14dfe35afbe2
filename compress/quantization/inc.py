"""Static int8 by Intel's neural-compressor: it chooses the ranges, judged by our metric; the graph becomes ours.

Here it works on the torch model. Its rounding goes through torch's exporter to the same pairs of quantizing and
dequantizing nodes as `int8.static` has, with the same rewrites as any traced classifier, so that stock onnxruntime runs
it and nothing of neural-compressor is needed afterwards.

It does not smooth channels that stand out (its SmoothQuant wants a package that is no longer made), and does not leave
products float by itself.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from compress.quantization.folded import PREFIX, store_weights
from compress.quantization.int8 import tables, unlogged
from compress.quantization.operators import MOST
from compress.quantization.watch import Batch
from distill.errors import MissingExtraError, RecipeError
from distill.layers import attention
from export.graph import Logits, free_shapes, inputs_of, program, sample
from export.rewrite import rewrite, strip

Answering = Callable[[Batch], NDArray[np.float32]]
"""A model: logits `(rows, labels)` of a batch."""
Judge = Callable[[Answering], float]
"""The metric of a model on the validation rows."""
LOG = logging.getLogger("potstill")


def check(checkpoint: Path | None) -> Path:
    """The checkpoint to work on, once it is known that all is there.

    Raises:
        RecipeError: there is no checkpoint.
        MissingExtraError: neural-compressor is not installed, or cannot be imported.
    """
    if checkpoint is None:
        raise RecipeError(
            "quantize.methods: inc-static works on the torch model, and a bundle holds none; give the checkpoint's "
            "folder in place of the bundle (`compress quantize CHECKPOINT --recipe RECIPE -o FOLDER`), or leave it out"
        )
    with _quiet():
        try:
            importlib.import_module("neural_compressor")
            importlib.import_module("neural_compressor.torch.quantization")
        except ImportError as error:
            raise MissingExtraError(
                "quantize.methods: inc-static needs neural-compressor: pip install 'potstill[train,cpu,inc]' "
                f"(importing it says: {error})"
            ) from error
    return checkpoint


def static(
    model: nn.Module, calibration: Sequence[Batch], judge: Judge, max_drop: float, opset: int, seed: int = 0
) -> onnx.ModelProto:
    """The int8 graph of a torch model, with ranges from calibration batches.

    neural-compressor's default is tried first, then its own choice for tuning (ranges around zero or not, from moving
    extremes or by the least divergence), until `judge` says that no more than `max_drop` is lost; else the best counts.
    Ranges are moving averages of what batches hold, so these come in an order that depends on `seed` alone.
    """
    names, shuffled = inputs_of(model), list(calibration)
    random.Random(seed).shuffle(shuffled)
    with _quiet(), attention(model, "eager"), torch.no_grad():
        rounded, metrics = _tuned(Logits(model.float()).eval(), names, shuffled, judge, max_drop)
        traced = program(rounded, names, opset)
    LOG.info("neural-compressor: %s in torch, its configurations %s", metrics[0], metrics[1:])
    store_weights(traced)
    rewrite(traced, PREFIX)
    graph = ir.serde.serialize_model(traced)
    strip(graph)
    found = tables(graph)
    onnx.checker.check_model(found)
    return found


def _tuned(
    module: nn.Module, names: Sequence[str], calibration: Sequence[Batch], judge: Judge, max_drop: float
) -> tuple[nn.Module, list[float]]:
    """The module with rounding in it, in the first configuration that loses little, or the best; and all metrics."""
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import StaticQuantConfig, TuningConfig, autotune

    metrics: list[float] = []

    def points(candidate: nn.Module) -> float:
        """1 plus what it gains on fp32, which is judged first: its tolerance is a share of fp32's figure."""
        metrics.append(judge(lambda batch: _answer(candidate, names, batch)))
        return 1 + metrics[-1] - metrics[0]

    def calibrate(observed: nn.Module) -> None:
        _seven_bits(observed)
        for batch in calibration:
            _answer(observed, names, batch)

    default = StaticQuantConfig()
    others = [each for each in StaticQuantConfig.get_config_set_for_tuning().expand() if each != default]
    exported = export(module, sample(names), dynamic_shapes=free_shapes(names))
    rounded = autotune(exported, TuningConfig([default, *others], tolerable_loss=max_drop), points, run_fn=calibrate)
    return cast(nn.Module, rounded), metrics


def _seven_bits(observed: nn.Module) -> None:
    """Keep weights within 7 bits, as all our int8 does: sums of 8-bit ones overflow on x86 without VNNI."""
    from torchao.quantization.pt2e import PerChannelMinMaxObserver

    for module in observed.modules():
        if isinstance(module, PerChannelMinMaxObserver):
            module.quant_min, module.quant_max = -MOST, MOST


def _answer(module: nn.Module, names: Sequence[str], batch: Batch) -> NDArray[np.float32]:
    """Logits `(rows, labels)`."""
    found: torch.Tensor = module(*(torch.from_numpy(batch[name]) for name in names))
    return cast(NDArray[np.float32], found.numpy())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep neural-compressor's tables and torchao's remarks off the screen."""
    with unlogged(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
