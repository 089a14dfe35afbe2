"""potstill's int8 bundles beside other engines: `python -m compress.against_peers FOLDER`, after `make peers`.

An encoder of 6 layers and width 384 (the teacher of the sentiment recipe), and two translation models with random
weights that always write 30 tokens. In each work all engines have the same weights, sentences, search and one thread,
and take turns in one run. Goals are ratios of times, ours over theirs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import onnx

from bench.candidates import Candidate, from_folder
from bench.measure import Plan, measure, with_peers, write_all
from bench.peers.prepare import make_peer
from compress import steps
from compress.large_translation import sentences
from compress.peer_goals import LARGE, OWN_FILE, PEERS, SHAPES, SHORTLIST, SMALL, Shape, goals, work_of
from compress.peer_picture import ratios, write_ratios
from compress.quantization.quantize import quantize
from compress.quantization.shortlist import shortlist
from compress.quantization.translation_int8 import write_int8
from distill import run
from distill.command import HELP, Options, call, load_recipe, quiet_libraries, set_up_logging
from distill.dataset import Dataset, Split
from distill.errors import MissingExtraError
from distill.files import new_folder, write_text
from distill.progress import Bars
from distill.recipe import BenchRecipe, QuantizeRecipe
from distill.recipe_learning import VocabularyRecipe
from distill.report import REPORT_FILE, Report, merge, read_report, write_report
from distill.sources import default_cache
from distill.steps import open_run, run_teach
from distill.task import Task
from export.bundle import read_bundle
from export.graph import export
from export.graphs.plan import Weights, read_plan
from export.runtime import Translator, load_as
from export.seq2seq.stacks import COMMON, NEAR

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "sentiment.yaml"
NAME, SEED, SENTENCES = "peers", 1, 40_000
TASK = Task(
    "translation", (), metric="bleu", max_length=64, max_target_length=30, source_language="en", target_language="it"
)
NEAREST = 24  # pieces of the shortlist
NEVER = -1e4  # the logit of a sentence's end, so that all engines write equally many tokens


def encoder(folder: Path, seconds: float, bars: Bars) -> Report:
    """The encoder's work; what is there already is not made again."""
    recipe = load_recipe(RECIPE, Options(None, (), False, False, False, False))
    with run.lock(folder):
        opened = open_run(recipe, folder, RECIPE.parent, default_cache(), False, bars)
        run_teach(opened)
        steps.run_export(opened, "teacher", "teacher-fp32")
    for method in ("dynamic", "static"):
        if not (folder / method).is_dir():
            only = QuantizeRecipe(methods=(method,))
            quantize(read_bundle(folder / "teacher-fp32"), folder / method, opened.dataset, only)
    names = ("dynamic", "static", "teacher-fp32", "teacher")
    own = [from_folder(folder / name, "encoder 6x384") for name in names]
    settings = BenchRecipe(
        batch_sizes=(1, 8, 32), lengths=(16, 64, 128), threads=(1,), against=PEERS, seconds_per_cell=seconds
    )

    def static(_: Sequence[Candidate], scratch: Path) -> list[Candidate]:
        return [_in_openvino(own[-1].folder, folder / "static", opened.dataset, scratch / "static")]

    return _measured(own, settings, opened.dataset, folder, bars, static)


def translation(shape: Shape, texts: Sequence[str], folder: Path, seconds: float, bars: Bars) -> Report:
    """One translation model's work; `texts` make its vocabulary, and the first 512 are translated."""
    if not (folder / "checkpoint").is_dir():
        _build(shape, texts, folder / "checkpoint")
    if not (folder / "fp32").is_dir():
        examples = Split(tuple(texts[:8]), None, ())
        export(folder / "checkpoint", folder / "fp32", opset=20, atol=1e-3, examples=examples)
    if not (folder / "int8").is_dir():
        write_int8(read_bundle(folder / "fp32"), folder / "int8")
    if not (folder / "shortlist").is_dir():
        write_int8(read_bundle(folder / "fp32"), folder / "shortlist", _shortlist(folder / "fp32", texts))
    own = [from_folder(folder / name, shape.name) for name in ("int8", "fp32", "checkpoint")]
    own.insert(1, from_folder(folder / "shortlist", shape.name + SHORTLIST))
    settings = BenchRecipe(batch_sizes=(1, 16, 32), beams=(1, 4), threads=(1,), against=PEERS, seconds_per_cell=seconds)
    test, none = Split(tuple(texts[:512]), None, ()), Split((), None, ())
    dataset = Dataset(TASK, {"train": test, "validation": none, "test": test}, "", {}, ())

    def mapped(candidates: Sequence[Candidate], scratch: Path) -> list[Candidate]:
        found = [each.folder for each in candidates if each.runtime == "ctranslate2"]
        known = read_plan(onnx.load(read_bundle(folder / "shortlist").model_path))[1]
        return [_mapped(each, known, shape, scratch / "mapped") for each in found]

    return _measured(own, settings, dataset, folder, bars, mapped)


def _mapped(peer: Path, known: Weights, shape: Shape, target: Path) -> Candidate:
    """CTranslate2 with the same shortlist, which it calls a vocabulary map."""
    shutil.copytree(peer, target)
    tokens = json.loads((peer / "tokens.json").read_bytes())
    lines = [("", known[COMMON]), *zip(tokens, known[NEAR], strict=True)]
    text = "".join(f"{source}\t{' '.join(tokens[place] for place in places)}\n" for source, places in lines)
    write_text(target / "vmap.txt", text)
    return Candidate(shape.name + SHORTLIST, "ctranslate2", "int8", target)


def _shortlist(bundle: Path, texts: Sequence[str]) -> Weights:
    """A shortlist that takes each text for the translation of the one before it: of real size, and without meaning."""
    translator = load_as(Translator, bundle)
    ids = [tokens.ids for tokens in translator.reader.read(list(texts))]
    return shortlist(list(pairwise(ids)), translator.limits.rows, NEAREST, translator.decoding)


def _texts() -> tuple[str, ...]:
    """Made-up sentences of 8 to 40 words."""
    found = list(sentences(SENTENCES))
    return tuple(f"{first} {second}" for first, second in zip(found[::2], found[1::2], strict=True))


def _build(shape: Shape, texts: Sequence[str], target: Path) -> None:
    """The checkpoint, with random weights."""
    import torch

    from distill.checkpoint import save
    from distill.seq2seq import build_seq2seq
    from distill.vocabulary import train_vocabulary

    tokenizer = train_vocabulary(texts, VocabularyRecipe(size=shape.pieces))
    config = {
        "model_type": "marian", "d_model": shape.width, "activation_function": "relu", "max_position_embeddings": 128,
    }  # fmt: skip
    for side in ("encoder", "decoder"):
        sizes = {"layers": getattr(shape, f"{side}_layers"), "ffn_dim": shape.feed_forward, "attention_heads": 8}
        config |= {f"{side}_{name}": value for name, value in sizes.items()}
    model: Any = build_seq2seq(config, tokenizer, TASK, SEED)
    with torch.no_grad():
        model.final_logits_bias[0, tokenizer.eos_token_id] = NEVER
    with new_folder(target) as folder:
        save(model, tokenizer, TASK, folder)


def _measured(
    own: Sequence[Candidate],
    settings: BenchRecipe,
    dataset: Dataset,
    folder: Path,
    bars: Bars,
    more: Callable[[Sequence[Candidate], Path], list[Candidate]],
) -> Report:
    """One run with all engines; the first of `own` is what the others are compared with. Its whole report is kept, too.

    `more` makes further candidates of these in a folder. Returned are the rows under the names of their works.
    """
    plan = Plan(quality=dataset.task.kind == "classification", memory=False, layers=False)
    with with_peers(own, settings, dataset) as (candidates, left_out), tempfile.TemporaryDirectory() as scratch:
        try:
            candidates += more(candidates, Path(scratch))
        except MissingExtraError as error:
            left_out.append(f"{OWN_FILE} in openvino left out: {error}")
        report = measure(NAME, candidates, settings, dataset, seed=SEED, plan=plan, progress=bars)
    report = replace(report, notes=(*report.notes, *left_out))
    write_all(report, folder / "report")
    return replace(report, latency=tuple(replace(row, work=work_of(row)) for row in report.latency))


def _in_openvino(checkpoint: Path, static: Path, dataset: Dataset, target: Path) -> Candidate:
    """The bundle's own static file, in OpenVINO as it is."""
    texts = dataset.splits["train"].texts
    folder = make_peer("openvino", "fp32", dataset.task, checkpoint, static, texts, target)
    return Candidate(OWN_FILE, "openvino", "int8", folder, "static")


@click.command(context_settings=HELP)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seconds", default=10.0, show_default=True, help="Time for each cell, all engines together.")
@click.option("--only", type=click.Choice(["encoder", SMALL, LARGE]), help="One work alone.")
def against_peers(folder: Path, seconds: float, only: str | None) -> None:
    """Measure potstill beside OpenVINO, CTranslate2 and Optimum; models and reports are kept in FOLDER.

    A work that is measured again takes the place of its rows in FOLDER/report.json. FOLDER/ratios.png shows them all.
    """
    set_up_logging()
    quiet_libraries()
    with Bars() as bars:
        found = [encoder(folder / "encoder", seconds, bars)] if only in (None, "encoder") else []
        for shape in (shape for shape in SHAPES if only in (None, shape.name)):
            found.append(translation(shape, _texts(), folder / shape.name.replace(" ", "-"), seconds, bars))
    before = [read_report(folder)] if (folder / REPORT_FILE).is_file() else []
    report = reduce(merge, [*before, *found])
    write_report(report, folder)
    write_text(folder / "report.md", goals(report) + "\n")
    if shown := ratios(report):
        write_ratios(shown, folder / "ratios.png")
    click.echo(goals(report))


if __name__ == "__main__":
    call(against_peers)
