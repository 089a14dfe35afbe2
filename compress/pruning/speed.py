"""How long a model's fp32 graph takes in onnxruntime: one text, one thread, compared in turns with another model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnxruntime
from torch import nn

from bench.compare import median_interval, speedup
from bench.latency import Effort, Work, time_in_turns
from distill.encoder_decoders import ARCHITECTURES
from distill.layers import model_config
from distill.task import Task
from export import graph
from export.seq2seq import export as seq2seq
from export.steps import engine_of

EFFORT = Effort(seconds=1.0, min_rounds=9, max_rounds=60)
TOKEN = 5
"""What all the texts are made of: times do not depend on it."""


def speedup_over(model: nn.Module, task: Task, opset: int, lengths: Sequence[int]) -> Callable[[nn.Module], float]:
    """What says how many times as fast as `model` another one surely is, at the length where it gains least.

    That is the lower end of the interval of its speedup, from rounds in turns: of sizes tried one after the other the
    largest whose median passes would mostly be one that was lucky.
    """
    before = _works(model, task, opset, lengths)

    def compare(smaller: nn.Module) -> float:
        after = _works(smaller, task, opset, lengths)
        return min(_surely(*both) for both in zip(before, after, strict=True))

    return compare


def _surely(before: Work, after: Work) -> float:
    """The lower end of a speedup's interval."""
    times = time_in_turns({"before": before, "after": after}, EFFORT, seed=0)
    medians = {name: np.median(rounds, axis=1) for name, rounds in times.items()}
    return speedup(medians["before"], medians["after"]).low


def milliseconds(model: nn.Module, task: Task, opset: int, length: int) -> float:
    """The median time of a text of `length` tokens; a translation is as long as its source."""
    (work,) = _works(model, task, opset, (length,))
    times = time_in_turns({"model": work}, EFFORT, seed=0)
    return median_interval(np.median(times["model"], axis=1)).value


def _works(model: nn.Module, task: Task, opset: int, lengths: Sequence[int]) -> list[Work]:
    """For each length one run of the model's graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    translates = model_config(model).model_type in ARCHITECTURES
    made = seq2seq.to_onnx(model, task, opset) if translates else graph.to_onnx(model, opset)
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    texts = [np.full((1, length), TOKEN) for length in lengths]
    return [_translation(session, model, ids) if translates else _classification(session, ids) for ids in texts]


def _classification(session: onnxruntime.InferenceSession, ids: np.ndarray) -> Work:
    """One text in, its logits out."""
    values: Mapping[str, np.ndarray] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    feed = {each.name: values[each.name] for each in session.get_inputs()}

    def run(_: int) -> None:
        session.run(None, feed)

    return run


def _translation(session: onnxruntime.InferenceSession, model: nn.Module, ids: np.ndarray) -> Work:
    """One sentence in, as many steps of the decoder."""
    engine = engine_of(session, int(model_config(model).vocab_size))

    def run(_: int) -> None:
        step = engine.start(ids, np.ones_like(ids))
        for token in ids[0]:
            step(np.array([token]))

    return run
