"""A translation model in onnxruntime: the source is read once, then the target is written step by step.

The graph's two ways are described in `export/seq2seq/build.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from distill.errors import BundleError
from export import looped
from export.bundle import Bundle
from export.decoding import Decoding
from export.hypotheses import Hypothesis, Ids, Logits, require_numbers
from export.session import line, open_onnx

Arrays = dict[str, NDArray[Any]]

ENCODE, STEP = np.array(False), np.array(True)
PLAIN = {
    "step": "tensor(bool)",
    "input_ids": "tensor(int64)",
    "attention_mask": "tensor(int64)",
    "positions": "tensor(int64)",
    "turns": "tensor(int64)",
    "prefix": "tensor(int64)",
    "end": "tensor(int64)",
    "barred": "tensor(float)",
    "beam_turns": "tensor(int64)",
    "beam_scores": "tensor(float)",
    "norms": "tensor(float)",
    "last": "tensor(int64)",
}
SELECTED = {"rows": "tensor(int64)", "sentences": "tensor(int64)"}
RANKS = {
    "step": 0, "input_ids": 2, "attention_mask": 2, "positions": 1, "turns": 0, "prefix": 1, "end": 0, "barred": 1,
    "source_matrix": 2, "source_scale": 1, "source_bias": 1, "rows": 1, "sentences": 1, "beam_turns": 0,
    "beam_scores": 1, "norms": 1, "last": 0,
}  # fmt: skip
KINDS: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int8)": np.dtype(np.int8),
}
INTEGERS = ("tokens", "words", "continuations", "parents", "order", "places")
NOTHING = np.zeros(0, np.int64)
SHORTLISTED = ("source_matrix", "source_scale", "source_bias")
NO_LOOP: Arrays = {
    "turns": np.array(0), "prefix": NOTHING, "end": np.array(0), "barred": np.zeros(1, np.float32),
    "beam_turns": np.array(0), "beam_scores": np.zeros(0, np.float32), "norms": np.zeros(1, np.float32),
    "last": np.array(-1),
}  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """An open translation model. `caches` holds heads and size of each past and source input.

    `shortlisted` are the inputs for what a shortlist keeps of the output matrix, with their types; there may be none.
    `real` is the type of keys and values. Where there is a `device`, they stay there, and the graph itself picks those
    that a step goes on with.
    """

    onnx: Any = field(repr=False)
    caches: Mapping[str, tuple[int, int]]
    vocabulary: int
    shortlisted: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    real: np.dtype[Any] = KINDS["tensor(float)"]
    device: str | None = None

    @property
    def layers(self) -> int:
        """How many layers the decoder has."""
        return len(self.caches) // 4

    @property
    def outputs(self) -> list[str]:
        """The names of keys and values among the outputs."""
        return [f"{part}.{layer}" for layer in range(self.layers) for part in ("keys", "values")]

    def start(self, ids: Ids, mask: Ids) -> Writing:
        """Read sources `(sentences, length)`; the answer is a step of the searches.

        Raises:
            BundleError: onnxruntime gives up, or a shortlist has tokens that there are not.
        """
        feed = {**self._reading(ids, mask), "positions": NOTHING, **NO_LOOP}
        names = self.outputs
        if self.shortlisted:
            names = [*names, "words", *(name.removeprefix("source_") for name in self.shortlisted)]
        found = {f"source_{name}": value for name, value in zip(names, self.run(names, feed), strict=True)}
        words = found.pop("source_words", None)
        if words is not None:
            self._require_tokens(words)
        pasts = {name: value for name, value in feed.items() if name.startswith("past_")}
        return Writing(self, mask, found, pasts, words)

    def write(self, ids: Ids, mask: Ids, rules: Decoding, n_best: int = 1) -> list[list[Hypothesis]]:
        """Translations from one run of the graph: greedy ones without scores, or the `n_best` of a beam search.

        Raises:
            BundleError: onnxruntime gives up, logits are not numbers, or tokens are none of the vocabulary.
        """
        way = looped.GREEDILY if rules.beams == 1 else looped.SEARCHING
        feed = {**self._reading(ids, mask), **NO_LOOP, **looped.prefix(rules, self.vocabulary), **way.feed(rules)}
        tokens, numbers, *others = self.run(way.outputs, feed)
        require_numbers(numbers)
        self._require_tokens(tokens)
        return way.hypotheses(rules, len(ids), n_best, tokens, *others)

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Run one way of the graph; with a device keys and values are what onnxruntime holds there.

        Raises:
            BundleError: onnxruntime gives up.
        """
        try:
            return list(self.onnx.run(outputs, feed) if self.device is None else self._bound(outputs, feed))
        except Exception as error:
            raise BundleError(f"the model failed: {line(error)}") from error

    def _bound(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Run with inputs and outputs bound to where they are."""
        binding, kept = self.onnx.io_binding(), set(self.outputs)
        for name, value in feed.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self.device if name in kept else "cpu")
        self.onnx.run_with_iobinding(binding)
        found = zip(outputs, binding.get_outputs(), strict=True)
        return [value if name in kept else value.numpy() for name, value in found]

    def _require_tokens(self, tokens: Ids) -> None:
        """Refuse tokens that nothing could be made of.

        Raises:
            BundleError: there are some outside of the vocabulary.
        """
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise BundleError(f"the model answered with tokens outside of its {self.vocabulary}: it is damaged")

    def _reading(self, ids: Ids, mask: Ids) -> Arrays:
        """What the graph gets to read sources: keys and values of nothing."""
        sizes = {name: (len(ids), heads, 0, size) for name, (heads, size) in self.caches.items()}
        empty: Arrays = {name: np.zeros(shape, self.real) for name, shape in sizes.items()}
        if self.device is not None:
            empty |= dict.fromkeys(SELECTED, NOTHING)
        for name, kind in self.shortlisted.items():
            empty[name] = np.zeros((0, 0) if name == "source_matrix" else 0, kind)
        return {"step": ENCODE, "input_ids": ids, "attention_mask": mask, **empty}


class Writing:
    """A batch of targets being written; holds their past. Called as `export.hypotheses.Step`.

    Where there is a shortlist, tokens are places in its `words`.
    """

    def __init__(self, engine: Engine, mask: Ids, source: Arrays, pasts: Arrays, words: Ids | None = None) -> None:
        """Begin after `engine` has read the source."""
        self.engine, self.position, self.words = engine, 0, words
        self.names = ["logits", *engine.outputs]
        self.pasts = [f"past_{name}" for name in engine.outputs]
        self.sources = [name for name in source if name in engine.caches]
        self.feed: Arrays = {"step": STEP, "attention_mask": mask, **source, **pasts, **NO_LOOP}
        if engine.device is not None:
            self.feed["sentences"] = np.arange(len(mask))

    def __call__(self, tokens: Ids, rows: Ids | None = None, sentences: Ids | None = None) -> Logits:
        """Logits `(rows, vocabulary)` after `tokens` `(rows,)`, or after several at once, `(rows, tokens)`.

        Raises:
            BundleError: onnxruntime gives up, or answers with another shape.
        """
        feed = self.feed
        self._select(rows, sentences)
        ids = tokens[:, None] if tokens.ndim == 1 else tokens
        if self.words is not None:
            ids = self.words[ids]
        feed["input_ids"] = ids
        feed["positions"] = np.arange(self.position, self.position + ids.shape[1])
        logits, *caches = self.engine.run(self.names, feed)
        feed.update(zip(self.pasts, caches, strict=True))
        self.position += ids.shape[1]
        expected = (len(ids), self.engine.vocabulary if self.words is None else len(self.words))
        if logits.shape != expected:
            raise BundleError(f"the model answered {logits.shape}, expected logits {expected}")
        return cast(Logits, logits)

    def _select(self, rows: Ids | None, sentences: Ids | None) -> None:
        """Go on with some rows of the past, and with some sentences of the source."""
        feed = self.feed
        if self.engine.device is not None:
            feed["rows"] = np.arange(len(feed.get("input_ids", feed["attention_mask"]))) if rows is None else rows
            if sentences is not None:
                feed["sentences"] = feed["sentences"][sentences]
                feed["attention_mask"] = feed["attention_mask"][sentences]
            return
        if rows is not None:
            for name in self.pasts:
                feed[name] = feed[name][rows]
        if sentences is not None:
            for name in ("attention_mask", *self.sources):
                feed[name] = feed[name][sentences]


def open_engine(bundle: Bundle, model: bytes, provider: str, threads: int | None, vocabulary: int) -> Engine:
    """Open the bundle's translation model from its bytes.

    Raises:
        BundleError: it is not a model that this onnxruntime runs, or not the one bundle.json describes.
        ProviderError: the provider is missing or did not start.
        MissingExtraError: there is no onnxruntime.
    """
    onnx = open_onnx(bundle, model, provider, threads, growing=True)
    problems = _problems(bundle, onnx.get_inputs(), onnx.get_outputs())
    if problems:
        raise BundleError(f"{bundle.model_file} is not the model that bundle.json describes", problems)
    return engine_of(onnx, vocabulary, "cpu" if provider == "cpu" else "cuda")


def engine_of(onnx: Any, vocabulary: int, device: str = "cpu") -> Engine:
    """The engine of an onnxruntime session whose graph is known to be a translation model's."""
    inputs = {node.name: node for node in onnx.get_inputs()}
    caches = {name: inputs[name] for name in _caches(inputs)}
    listed = {name: KINDS[inputs[name].type] for name in SHORTLISTED if name in inputs}
    return Engine(
        onnx,
        {name: (node.shape[1], node.shape[3]) for name, node in caches.items()},
        vocabulary,
        listed,
        KINDS[next(iter(caches.values())).type],
        device if "rows" in inputs else None,
    )


def _caches(names: Iterable[str]) -> list[str]:
    """The inputs that are keys and values."""
    return [name for name in names if name not in (*PLAIN, *SHORTLISTED, *SELECTED)]


def _problems(bundle: Bundle, inputs: Sequence[Any], outputs: Sequence[Any]) -> list[str]:
    """What is wrong with the inputs and outputs: names, types and ranks."""
    found = {node.name: node for node in inputs}
    layers = len(_caches(found)) // 4
    parts = [f"{part}.{layer}" for layer in range(max(1, layers)) for part in ("keys", "values")]
    listed = [name for name in SHORTLISTED if name in found]
    selected = [name for name in SELECTED if name in found]
    real = "tensor(float16)" if bundle.precision == "fp16" else "tensor(float)"
    expected = [*PLAIN, *(f"past_{part}" for part in parts), *(f"source_{part}" for part in parts), *listed]
    expected += list(SELECTED) if selected else []
    problems = []
    if sorted(found) != sorted(expected) or sorted(found) != sorted(bundle.inputs):
        problems.append(f"inputs: expected {', '.join(expected)}, found {', '.join(found)}")
    names = [node.name for node in outputs]
    words = ["words", *(name.removeprefix("source_") for name in listed)] if listed else []
    wanted = ["logits", *parts, *words, *looped.GREEDILY.outputs, *looped.SEARCHED]
    if names != wanted or names != list(bundle.outputs):
        problems.append(f"outputs: expected {', '.join(wanted)}, found {', '.join(names)}")
    for node in inputs:
        kind, rank = {**PLAIN, **SELECTED}.get(node.name, real), RANKS.get(node.name, 4)
        if node.name == "source_matrix" and node.type in KINDS:
            kind = node.type
        sizes = node.shape[1::2] if rank == 4 else []
        if node.type != kind or len(node.shape) != rank or not all(isinstance(size, int) for size in sizes):
            problems.append(f"input {node.name}: expected {kind} of rank {rank}, found {node.type} {node.shape}")
    for node in outputs:
        kind = "tensor(int64)" if node.name in INTEGERS else real if node.name in parts else "tensor(float)"
        if node.type != kind and not (node.name == "matrix" and node.type in KINDS):
            problems.append(f"output {node.name}: expected {kind}, found {node.type}")
    return problems
