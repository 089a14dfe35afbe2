"""What each layer of a bundle costs: bytes, parameters, products, and milliseconds in onnxruntime's own profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import onnx

from bench.batches import mean_length
from bench.candidates import Candidate, kind_of, longest
from bench.graph_layers import StoredLayer, naming_of, node_layers, stored_layers
from bench.latency import Cell
from bench.layer_names import REST, order
from bench.profiled import Profile, Work, profile_in_turns
from bench.quiet import cores_of_others, read_clocks, too_busy
from bench.tasks import KINDS
from bench.with_onnxruntime import backend_of
from distill.environment import cores
from distill.errors import DataError
from distill.rows import LayerCost
from export.manifest import TOKENIZER
from export.runtime import Model, load
from export.texts import Text

MOST_TEXTS = 5
ROUNDS: Mapping[str, int] = {"classification": 30, "translation": 5}


@dataclass(frozen=True)
class Asked:
    """What the models do in each round: one batch of ids, or of translations a few sentences, one after the other.

    Without `texts` ids are drawn from the vocabulary, and as many tokens are written as read.
    """

    batch: int = 1
    length: int = 64
    rounds: int | None = None
    texts: tuple[Text, ...] = ()
    seed: int = 1


@dataclass(frozen=True)
class Costs:
    """One bundle's layers, and the milliseconds of its fastest run without the profiler, which takes time itself.

    The fastest, because a busy machine interrupts most runs of a large model, and would make the rest of what it took.
    """

    candidate: Candidate
    rows: tuple[LayerCost, ...]
    file_bytes: int
    plain_ms: float


def read_lines(path: Path) -> tuple[str, ...]:
    """Sentences of a text file, a line each.

    Raises:
        DataError: there are none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a text file with a sentence a line: {error}") from error
    found = tuple(line for line in lines if line.strip())
    if not found:
        raise DataError(f"{path}: expected a sentence a line, found none")
    return found


def measure_layers(candidates: Sequence[Candidate], asked: Asked) -> list[Costs]:
    """Measure bundles, in turns.

    Raises:
        BundleError, ProviderError: one of them cannot be loaded, or not on a processor.
        DataError: they answer different kinds of questions, or there are too many nodes to be written down.
    """
    kinds = {candidate.name: kind_of(candidate) for candidate in candidates}
    if len(set(kinds.values())) > 1:
        raise DataError("expected bundles for one kind of task", [f"{name}: {kind}" for name, kind in kinds.items()])
    models = [load(candidate.folder, threads=1) for candidate in candidates]
    works = [(model, _work(candidate, asked)) for candidate, model in zip(candidates, models, strict=True)]
    before = read_clocks()
    profiles = profile_in_turns(works, asked.rounds or ROUNDS[kind_of(candidates[0])])
    others = cores_of_others(before, read_clocks())
    busy = f"other processes took {others} of {cores()} core(s)" if too_busy(others, 1, cores()) else None
    return [_costs(*each, asked, busy) for each in zip(candidates, models, profiles, strict=True)]


def _work(candidate: Candidate, asked: Asked) -> Work:
    """What a bundle does in each round: what `bench` times, too."""
    cell, texts = _cell(candidate, asked), asked.texts[:MOST_TEXTS]

    def of(model: Model) -> partial[None]:
        run = KINDS[kind_of(candidate)].work(candidate, backend_of(model), cell, texts, asked.seed)
        numbers = range(len(texts)) if cell.work == "text" else range(1)
        return partial(_each, run, numbers)

    return of


def _cell(candidate: Candidate, asked: Asked) -> Cell:
    """What is asked of a bundle: a classifier reads ids, whatever the texts are; no model more than it takes."""
    most, texts = longest(candidate), asked.texts[:MOST_TEXTS]
    length = asked.length if most is None else min(asked.length, most)
    if kind_of(candidate) != "translation":
        return Cell("cpu", 1, asked.batch, length)
    if not texts:
        return Cell("cpu", 1, asked.batch, length, beams=1)
    return Cell("cpu", 1, 1, mean_length(candidate.folder / TOKENIZER, texts, most or length), "text", beams=1)


def _each(run: Callable[[int], object], numbers: Sequence[int]) -> None:
    """One round."""
    for number in numbers:
        run(number)


def _costs(candidate: Candidate, model: Model, profile: Profile, asked: Asked, busy: str | None) -> Costs:
    """One bundle's rows, in the order of its layers."""
    written = model.bundle.model_path.read_bytes()
    graph, cell = onnx.load_from_string(written), _cell(candidate, asked)
    stored = {each.layer: each for each in stored_layers(graph)}
    beside = len(written) - sum(each.bytes for each in stored.values())
    stored[REST] = replace(stored[REST], bytes=stored[REST].bytes + beside)
    texts = min(len(asked.texts), MOST_TEXTS) if cell.work == "text" else 1
    plain = min(profile.plain_ms) / texts
    times = {layer: time / texts for layer, time in layer_times(profile, graph).items()}
    times |= {REST: max(0.0, plain - sum(times.values()))}
    rows = [
        _row(candidate, stored.get(layer, StoredLayer(layer)), times.get(layer, 0.0), sum(times.values()), cell)
        for layer in sorted({*stored, *times}, key=order)
    ]
    rows = [replace(row, runs=len(profile.rounds), reason=busy) for row in rows]
    return Costs(candidate, tuple(rows), len(written), plain)


def _row(candidate: Candidate, stored: StoredLayer, ms: float, whole: float, cell: Cell) -> LayerCost:
    """One layer as a row of a report."""
    return LayerCost(
        model=candidate.model,
        precision=candidate.precision,
        layer=stored.layer,
        bytes=stored.bytes,
        parameters=stored.parameters,
        products=stored.products,
        int8_products=stored.int8_products,
        ms=ms,
        share=ms / whole if whole else 0.0,
        runtime=candidate.runtime,
        method=candidate.method,
        heads=stored.heads,
        cross_heads=stored.cross_heads,
        neurons=stored.neurons,
        zeros=stored.zeros,
        batch=cell.batch,
        length=cell.length,
        work=cell.work,
    )


def layer_times(profile: Profile, graph: onnx.ModelProto) -> dict[str, float]:
    """Milliseconds of each layer: the medians of its nodes. What belongs to no layer is left out.

    A node's median is what another process hardly touches; that of a whole layer would be on a busy machine.
    """
    known = node_layers(profile.graph, naming_of(graph))
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for each in profile.rounds for name in each):
        layer = known.get(name, REST)
        if layer != REST:
            found[layer] = found.get(layer, 0.0) + median(each.get(name, 0.0) for each in profile.rounds)
    return found
