"""mBART-large-50's real size, from a checkpoint to int8: `python -m compress.large_translation FOLDER`.

The weights are random (the shape is what is measured): 12 and 12 layers of width 1024, 250,054 pieces, 611 million
parameters. Its vocabulary is cut down to what a corpus uses, it is exported, made int8, and translates one batch. Each
step is a process of its own; printed are the bytes of what it leaves and its peak memory.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bench.markdown import table
from bench.memory import peak_bytes
from distill.command import HELP, call, quiet_libraries
from distill.errors import RunError
from distill.task import Task

PIECES = 250_054
WORDS, PARTS = 15_000, 25_000
"""Whole words, and beginnings and ends of words, that are pieces of the tokenizer, the most frequent ones."""
SENTENCES = 20_000
BATCH = 8
TASK = Task(
    "translation", (), metric="bleu", max_length=32, max_target_length=16, source_language="en_XX",
    target_language="it_IT",
)  # fmt: skip
CORPUS = "corpus.txt"
FORMS = {"build": "checkpoint", "prune": "pruned", "export": "fp32", "int8": "int8", "translate": "int8"}
"""What each step leaves, or reads."""


def sentences(count: int) -> Iterator[str]:
    """Sentences of 4 to 20 made-up words, few of which are frequent (Zipf)."""
    choose = random.Random(0)
    syllables = ["".join(pair) for pair in itertools.product("bcdfglmnprstv", "aeiou")]
    words = ["".join(choose.choices(syllables, k=choose.randint(1, 4))) for _ in range(30_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    for _ in range(count):
        yield " ".join(choose.choices(words, cum_weights=weights, k=choose.randint(4, 20)))


def pieces_for(texts: Sequence[str], count: int) -> list[tuple[str, float]]:
    """`count` pieces with scores, as unigram might have: of these texts, and of a language that they never use."""
    words = Counter(word for text in texts for word in text.split())
    parts = Counter[str]()
    for word, times in words.items():
        parts.update({f"▁{word[:size]}": times for size in range(1, min(6, len(word)))})
        parts.update({word[-size:]: times for size in range(2, min(6, len(word)))})
    letters = sorted({letter for word in words for letter in word})
    own = [f"▁{word}" for word, _ in words.most_common(WORDS)] + [part for part, _ in parts.most_common(PARTS)]
    other = ("".join(letters) for letters in itertools.product("абвгдежзиклмнопрстуфхцчшщэюя", repeat=4))
    found = itertools.islice(dict.fromkeys(itertools.chain(["▁", *own, *letters], other)), count)
    return [(piece, round(-7 - math.log2(rank + 1) / 2, 6)) for rank, piece in enumerate(found)]


def build(folder: Path) -> None:
    """The checkpoint, as large as mBART-large-50."""
    import torch
    from transformers import MBart50Tokenizer, MBartConfig, MBartForConditionalGeneration
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

    from distill.checkpoint import save

    special = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    last = [(piece, 0.0) for piece in (*FAIRSEQ_LANGUAGE_CODES, "<mask>")]
    texts = (folder / CORPUS).read_text(encoding="utf-8").splitlines()
    own = pieces_for(texts, PIECES - len(special) - len(last))
    tokenizer = MBart50Tokenizer(vocab=[*special, *own, *last], src_lang="en_XX", tgt_lang="it_IT")
    torch.manual_seed(0)
    config = MBartConfig(vocab_size=PIECES, scale_embedding=True, decoder_start_token_id=2)
    model = MBartForConditionalGeneration(config).eval()
    (folder / "checkpoint").mkdir()
    save(model, tokenizer, TASK, folder / "checkpoint")


def prune(folder: Path) -> None:
    """The checkpoint with the pieces that the corpus uses."""
    from compress.vocabulary import prune_folder

    prune_folder(folder / "checkpoint", [folder / CORPUS], folder / "pruned")


def export(folder: Path) -> None:
    """The fp32 bundle, compared with torch on one batch."""
    from distill.dataset import Split
    from export.graph import export as to_bundle

    examples = Split(tuple(first_sentences(folder)), None, ())
    to_bundle(folder / "pruned", folder / "fp32", opset=20, atol=1e-3, examples=examples)


def int8(folder: Path) -> None:
    """The int8 bundle."""
    from compress.quantization.translation_int8 import write_int8
    from export.bundle import read_bundle

    write_int8(read_bundle(folder / "fp32"), folder / "int8")


def translate(folder: Path) -> None:
    """One batch by the int8 bundle, without torch."""
    from export.runtime import Translator, load_as

    answers = load_as(Translator, folder / "int8", threads=1)(first_sentences(folder))
    assert len(answers) == BATCH and "torch" not in sys.modules


STEPS: Mapping[str, Callable[[Path], None]] = {
    "build": build, "prune": prune, "export": export, "int8": int8, "translate": translate,
}  # fmt: skip


def first_sentences(folder: Path) -> list[str]:
    """One batch of the corpus."""
    with (folder / CORPUS).open(encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in itertools.islice(lines, BATCH)]


def run_step(folder: Path, step: str) -> dict[str, Any]:
    """One step in a process of its own; pieces and bytes of what it leaves, and its peak.

    Raises:
        RunError: it failed.
    """
    command = [sys.executable, "-W", "ignore", "-m", "compress.large_translation", str(folder), "--step", step]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{step} failed (exit {done.returncode})", done.stderr.strip().splitlines()[-3:])
    made = folder / FORMS[step]
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    return {"bytes": size, "pieces": _pieces(made), **json.loads(done.stdout.splitlines()[-1])}


def _pieces(folder: Path) -> int:
    """How many pieces the model of a folder has."""
    return int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"])


@click.command(context_settings=HELP)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--corpus", type=click.Path(path_type=Path), help="File of texts, every cell one (default: made-up words)."
)
@click.option("--step", type=click.Choice(list(STEPS)), hidden=True)
def large_translation(folder: Path, corpus: Path | None, step: str | None) -> None:
    """Build mBART-large-50 in FOLDER, prune its vocabulary, export, quantize and translate."""
    if step != "translate":  # which has to do without transformers
        quiet_libraries()
    if step is not None:
        STEPS[step](folder)
        click.echo(json.dumps({"peak": peak_bytes()}))
        return
    from compress.vocabulary import texts_of

    folder.mkdir(parents=True)
    texts = dict.fromkeys(texts_of(corpus) if corpus else sentences(SENTENCES))
    (folder / CORPUS).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    rows = []
    for name in STEPS:
        found = run_step(folder, name)
        rows.append([name, f"{found['pieces']:,}", f"{found['bytes'] / 1e6:,.0f}", f"{found['peak'] / 1e9:.2f}"])
        click.echo(" ".join(rows[-1]), err=True)
    click.echo(table(["step", "pieces", "MB on disk", "peak GB"], rows))


if __name__ == "__main__":
    call(large_translation)
