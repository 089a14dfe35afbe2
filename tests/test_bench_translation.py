"""Translation models measured: scores and parity by hand, rates by hand, and a whole report of tiny real models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from translation_models import TASK, toy_sources, write_translator

from bench.backends import Backend, open_candidate
from bench.candidates import Candidate, from_bundle, from_checkpoint, from_folder, kind_of, longest
from bench.evaluate import evaluate_folder
from bench.latency import Cell, Place, summarise
from bench.markdown import markdown
from bench.measure import Plan, measure, write_all
from bench.pareto import frontier, points
from bench.quality import origins
from bench.tasks.translation import Answers, Writing, answer, cells, finished, notes, parity, quality_rows
from bench.words import axis_titles, score_line, shown_rows
from bench.written import Written, of_length
from compress.quantization.translation_int8 import write_int8
from distill.data import Dataset, Split
from distill.errors import DataError, RecipeError
from distill.metrics import Score
from distill.recipe import BenchRecipe, parse
from distill.report import Report, read_report
from export.decoding import Decoding
from export.graph import export

SOURCES = toy_sources(24)
SPLIT = Split(SOURCES, None, (), tuple(text.replace("il", "the") for text in SOURCES))
DATASET = Dataset(TASK, {"train": SPLIT, "validation": SPLIT, "test": SPLIT}, "0" * 64, {}, ())
QUICK = BenchRecipe(
    batch_sizes=(1, 3), lengths=(4, 99), beams=(1, 2), threads=(1,), seconds_per_cell=0.01, min_rounds=2, max_rounds=3
)
A, B = Candidate("teacher", "torch", "fp32", Path("a")), Candidate("bundle", "onnxruntime", "int8", Path("b"))


def wrote(candidate: Candidate, texts: list[str], stopped: int = 0) -> Answers:
    return Answers(candidate, tuple(Written(text, 3, place < stopped) for place, text in enumerate(texts)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    """A checkpoint, its fp32 bundle and its int8 bundle."""
    folder = tmp_path_factory.mktemp("translators")
    checkpoint = write_translator(folder / "student")
    fp32 = export(checkpoint, folder / "fp32", opset=20, atol=1e-4, examples=SPLIT)
    write_int8(fp32, folder / "bundle")
    return [
        from_checkpoint("student", checkpoint),
        from_bundle("student", fp32.folder),
        from_bundle("bundle", folder / "bundle"),
    ]


# --- by hand ----------------------------------------------------------------------------------------


def test_rows_have_both_metrics_and_differ_from_the_first() -> None:
    right, wrong = list(SPLIT.targets or ()), ["il libro"] * len(SOURCES)
    rows = quality_rows([wrote(A, right), wrote(B, wrong, stopped=2)], DATASET, "test", seed=3)
    assert [(row.model, row.metric) for row in rows] == [
        *(("teacher", "bleu"), ("teacher", "chrf"), ("bundle", "bleu"), ("bundle", "chrf")),
    ]
    first, worse = rows[0], rows[2]
    assert first.value == pytest.approx(100) and first.difference is None and first.n == len(SOURCES)
    assert first.signature.startswith("nrefs:1|") and "seed:3" in first.signature
    assert worse.difference == pytest.approx(worse.value - 100)
    assert worse.difference_low <= worse.difference <= worse.difference_high < 0
    assert (worse.flipped, worse.stopped, worse.beams, worse.baseline) == (24, 2, 1, "teacher torch fp32")
    chosen = replace(DATASET, task=replace(TASK, metric="chrf"))
    assert [row.metric for row in quality_rows([wrote(A, right)], chosen, "test", 1)] == ["chrf", "bleu"]


def test_parity_is_the_share_of_equal_translations() -> None:
    graph = replace(A, runtime="onnxruntime")
    answers = [wrote(A, ["a", "b", "c", "d"]), wrote(graph, ["a", "b", "c", "d"]), wrote(B, ["a", "b", "c", "e"])]
    found = [parity(*pair) for pair in origins(answers)]
    assert [(row.a, row.b, row.agreement, row.n, row.max_abs) for row in found] == [
        ("teacher torch", "teacher onnx fp32", 1.0, 4, None),
        ("teacher onnx fp32", "bundle onnx int8", 0.75, 4, None),
    ]


def test_row_17_a_model_that_is_no_better_than_copying_is_named() -> None:
    rows = quality_rows([wrote(A, list(SPLIT.targets or ())), wrote(B, list(SOURCES))], DATASET, "test", 1)
    found = notes(rows, DATASET, "test")
    assert any("bundle (onnxruntime int8)" in note and "no more than copying the sources" in note for note in found)
    assert not any("teacher" in note for note in found)


def test_row_49_translations_that_never_ended_are_counted() -> None:
    rows = quality_rows([wrote(A, list(SPLIT.targets or ()), stopped=5)], DATASET, "test", 1)
    assert "WARNING: teacher torch fp32: 5 of 24 translations were stopped at the longest length (16 tokens)" in notes(
        rows, DATASET, "test"
    )


def test_rates_by_hand() -> None:
    sentences = [[Written("a b", 3, False), Written("c", 2, False)], [Written("a b c d", 6, False)] * 2]
    work = Writing(cast(Backend, None), lambda number: sentences[number])
    for number in (0, 0, 1):
        work(number)
    times = np.array([[100.0, 300.0], [400.0, 400.0]])  # medians 200 and 400 ms
    (row,) = summarise(Cell("cpu", 1, 2, 5, "text", beams=1), {A: times}, A)
    row = finished(row, work, times)
    assert row.words_per_second == pytest.approx((15 + 20) / 2)  # 3 words in 0.2 s, 8 in 0.4 s
    assert row.tokens_per_second == pytest.approx((25 + 30) / 2)
    assert (row.words_per_second_low, row.words_per_second_high) == (15, 20)
    assert row.new_tokens == pytest.approx((3 + 2 + 6 + 6) / 4)
    assert row.cell == ("text", "cpu", 1, 2, 5, 1)


def test_a_fixed_number_of_tokens_is_never_ended() -> None:
    rules = Decoding(0, 1, 2, 40, forced_end=1, suppressed=(2,), beams=4, no_repeat_ngram_size=2)
    assert of_length(rules, 7) == Decoding(0, 1, 2, 7, suppressed=(1, 2))


def test_a_score_in_one_line() -> None:
    line = score_line(Score("bleu", 31.25, 30.0, 32.5, 100, "tok:13a"))
    assert line == "bleu 31.25  95 % interval 30.00 to 32.50  n=100  (tok:13a)"
    assert score_line(Score("accuracy", 0.5, 0.25, 0.75, 8, "s")).startswith("accuracy 0.5000  95 % interval 0.2500")


# --- tiny real models -------------------------------------------------------------------------------


def test_a_checkpoint_and_its_bundle_translate_alike(run: list[Candidate]) -> None:
    torch_, fp32, int8 = (answer(candidate, TASK, SOURCES, threads=1) for candidate in run)
    assert parity(torch_, fp32).agreement == 1
    assert [each.tokens for each in torch_.written] == [each.tokens for each in fp32.written]
    assert [each.stopped for each in torch_.written] == [each.stopped for each in fp32.written]
    assert any(each.stopped for each in fp32.written) and len(int8.written) == len(SOURCES)
    wide = [answer(candidate, TASK, SOURCES[:6], 1, beams=3) for candidate in run[:2]]
    assert wide[0].texts == wide[1].texts != torch_.texts[:6]


@pytest.mark.parametrize("threads", [1, 2])
def test_fixed_ids_are_answered_with_as_many_tokens(run: list[Candidate], threads: int) -> None:
    ids = np.random.default_rng(0).integers(3, 20, (2, 7))
    for candidate in run[:2]:
        with open_candidate(candidate, threads, "cpu") as backend:
            found = backend.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
            lengths = {len(row if isinstance(row[0], int) else row[0].tokens) for row in found}
            assert lengths == {7}
            assert len(backend.translate(["il gatto"], 1)) == 1  # type: ignore[attr-defined]


def test_cells_of_sentences_and_of_lengths(run: list[Candidate]) -> None:
    found = cells(QUICK, Place("cpu", 2), [4], SOURCES, run[0], 24)
    length = found[-1].length
    assert found == [
        *(Cell("cpu", 2, batch, 4, "ids", 1) for batch in (1, 3)),
        *(Cell("cpu", 2, batch, length, "text", beams) for beams in (1, 2) for batch in (1, 3)),
    ]
    assert cells(QUICK, Place("cpu", 1), [], [], run[0], 24) == []


@pytest.fixture(scope="module")
def report(run: list[Candidate]) -> Report:
    return measure("toy", run, QUICK, DATASET, seed=7)


def test_every_section_has_every_model(report: Report, tmp_path: Path) -> None:
    assert len(report.quality) == 3 * 2 and len(report.parity) == 2 and len(report.memory) == len(report.size) == 3
    assert [row.cell[3:] for row in report.latency if row.precision == "int8"] == [
        *((1, 4, 1), (3, 4, 1)),
        *((batch, report.latency[-1].length, beams) for beams in (1, 2) for batch in (1, 3)),
    ]
    assert all(row.tokens_per_second > 0 for row in report.latency)
    assert all((row.words_per_second is None) == (row.work == "ids") for row in report.latency)
    assert "length 99 left out: student torch fp32 takes at most 16 tokens" in report.notes
    assert any(note.startswith("a run translates as many real sentences") for note in report.notes)
    write_all(report, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"pareto.html", "pareto.png", "report.json", "report.md"}
    assert read_report(tmp_path) == report


def test_the_picture_is_quality_against_words_a_second(report: Report) -> None:
    rows = shown_rows(report)
    assert {row.cell for row in rows} == {("text", "cpu", 1, 1, rows[0].length, 1)}
    across, up = axis_titles(report)
    assert across.startswith("words a second, batch 1, ~") and up.startswith("bleu (test, n = 24)")
    found = points(report)
    assert [point.speed.value for point in found] == [row.words_per_second for row in rows]
    assert {point.quality_row.metric for point in found} == {"bleu"}
    best = frontier(found)
    assert best[0].speed.value == max(point.speed.value for point in found)


def test_the_page_has_a_table_of_words_a_second(report: Report) -> None:
    lines = markdown(report).splitlines()
    head = next(line for line in lines if line.startswith("| model | batch 1, ~"))
    assert head.count("greedy") == 2 and head.count("2 beams") == 2
    assert sum(line.startswith("### cpu, 1 thread, real texts, tokenizer included, 2 beams") for line in lines) == 1
    assert any("| bundle onnxruntime int8 dynamic | test | chrf |" in line for line in lines)


def test_what_is_not_of_this_kind_is_refused(run: list[Candidate], tiny_checkpoint: Path) -> None:
    classifier = from_folder(tiny_checkpoint, "classifier")
    assert (kind_of(run[0]), kind_of(run[2]), kind_of(classifier)) == ("translation", "translation", "classification")
    assert (longest(run[0]), longest(run[1]), longest(classifier)) == (16, 16, 64)
    with pytest.raises(DataError) as caught:
        measure("toy", [run[0], classifier], QUICK, DATASET, plan=Plan(latency=False, memory=False))
    assert caught.value.problems == ("classifier torch fp32: classification",)
    with pytest.raises(DataError, match="expected a model for translation, found one for classification"):
        answer(classifier, TASK, SOURCES, 1)


def test_evaluate_searches_as_it_is_told(run: list[Candidate], tmp_path: Path) -> None:
    lines = [f"{source}\t{target}\n" for source, target in zip(SOURCES, SPLIT.targets or (), strict=True)]
    (tmp_path / "pairs.tsv").write_text("".join(dict.fromkeys(lines)))
    task = {"kind": "translation", "max_length": 24, "max_target_length": 16}
    split = {"validation": 0.3, "test": 0.6}
    data = {"source": "pairs.tsv", "columns": ["text", "target"], "split": split, "filters": {"copies": False}}
    recipe = parse({"name": "toy", "data": data, "task": task, "teacher": {"model": "m"}}, "toy")
    for beams in (None, 3):
        one, other = (evaluate_folder(each.folder, recipe, tmp_path, "test", beams) for each in run[:2])
        assert [score.metric for score in one] == ["bleu", "chrf"] and one == other and one[0].n > 5
    labels = parse({"name": "toy", "data": {"source": "a.csv"}, "teacher": {"model": "m"}}, "toy")
    with pytest.raises(RecipeError, match="--beams goes with translation"):
        evaluate_folder(run[0].folder, labels, tmp_path, "test", 2)
