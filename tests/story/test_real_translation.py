"""A slice of real text through the settings of a recipe that ships, only smaller; skipped where there is no corpus."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from command_runs import start

from distill.bleu import corpus_score
from distill.report import read_report
from potstill import load

CORPUS = Path(os.environ.get("POTSTILL_DATA", "")) / "translation" / "en-it"
RECIPE = Path(__file__).parents[2] / "recipes" / "translation-en-it.yaml"
SMALL = {"d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CORPUS / "train.tsv").is_file(), reason="POTSTILL_DATA has no translation/en-it"),
]


def short_pairs(split: str, count: int) -> list[list[str]]:
    """The first pairs of at most eight words a side."""
    found: list[list[str]] = []
    with (CORPUS / f"{split}.tsv").open(encoding="utf-8") as file:
        for line in file:
            pair = line.rstrip("\n").split("\t")
            if max(len(side.split()) for side in pair) <= 8:
                found.append(pair)
            if len(found) == count:
                break
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of the small recipe."""
    folder = tmp_path_factory.mktemp("slice")
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    for name, split, count in (("train", "train", 4000), ("validation", "valid", 300), ("test", "test", 300)):
        rows = "".join("\t".join(pair) + "\n" for pair in short_pairs(split, count))
        (folder / f"{name}.tsv").write_text(rows, encoding="utf-8")
        recipe["data"][name] = f"{name}.tsv"
    recipe["vocabulary"]["size"] = 2000
    recipe["teacher"]["config"] |= SMALL
    changes = {"num_train_epochs": 12, "tokens_per_batch": 1500, "warmup_steps": 30, "learning_rate": 5e-3}
    recipe["teacher"]["training"] |= {**changes, "eval_strategy": "steps", "eval_steps": 1000}
    recipe["student"]["training"] |= {**changes, "num_train_epochs": 4, "max_steps": -1, "eval_steps": 1000}
    recipe["bench"] = {"batch_sizes": [1], "threads": [1], "seconds_per_cell": 0.1, "max_rounds": 5}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    ended = start("compress", "run", folder / "recipe.yaml", "-o", folder / "run", watched=folder).end(seconds=1800)
    assert ended.code == 0, ended.err
    return folder / "run"


def test_teacher_student_and_bundle_have_learned_italian(run: Path) -> None:
    pairs = short_pairs("test", 300)
    sources, references = [source for source, _ in pairs], [target for _, target in pairs]
    copied, _ = corpus_score("bleu", sources, references, "it")
    bleu = {row.model: row.value for row in read_report(run / "report").quality if row.metric == "bleu"}
    assert set(bleu) >= {"teacher", "student", "bundle"}
    assert min(bleu.values()) > copied + 3, "better than not translating"
    found = [answer.text for answer in load(run / "bundle", threads=1)(sources)]
    # int8 answers follow their batch: the report's batches are others, and so are some of the words
    assert corpus_score("bleu", found, references, "it")[0] == pytest.approx(bleu["bundle"], abs=1.5)
