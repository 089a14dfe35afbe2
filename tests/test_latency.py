"""Rounds, turns, batches and the clocks. Nothing here depends on how fast anything is."""

from __future__ import annotations

import gc
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from onnx_bytes import GOLDEN, GOLDEN_INT8

from bench.backends import open_candidate, opener
from bench.batches import fixed_batch, mean_length
from bench.candidates import Candidate, from_bundle, from_folder, limits, size
from bench.latency import Cell, Effort, summarise, time_in_turns
from bench.quiet import Clocks, cores_of_others, read_clocks, too_busy
from distill.environment import cores
from distill.errors import BundleError, DataError, ProviderError

pytestmark = pytest.mark.runtime
A, B, C = (Candidate(name, "onnxruntime", "fp32", Path(name)) for name in "abc")
TEXTS = ["the film is good", "a dull story", "warm and funny people with some music"]


def test_rounds_are_interleaved_and_every_model_has_as_many() -> None:
    calls: list[Candidate] = []
    work = {each: lambda number, each=each: calls.append(each) for each in (A, B, C)}
    times = time_in_turns(work, Effort(seconds=60, min_rounds=2, max_rounds=7), seed=3)
    assert {rounds.shape for rounds in times.values()} == {(7, 5)}  # short work: five runs a turn
    kept = calls[2 * 3 :]  # after two rounds of warm-up; each turn is one uncounted run and five counted
    turns = [kept[start : start + 6] for start in range(0, len(kept), 6)]
    assert all(len(set(turn)) == 1 for turn in turns)
    orders = [tuple(turn[0].model for turn in turns[start : start + 3]) for start in range(0, 21, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1, "the order changes"


def test_effort_is_kept_within_bounds() -> None:
    numbers: list[int] = []
    time_in_turns({A: numbers.append}, Effort(seconds=1e-9, min_rounds=4, max_rounds=9), seed=0)
    assert set(numbers) == {0, 1, 2, 3}


def test_all_models_meet_the_same_text_in_the_same_round() -> None:
    met: dict[Candidate, list[int]] = {A: [], B: []}
    time_in_turns({each: met[each].append for each in met}, Effort(60, 1, 5), seed=1)
    assert Counter(met[A]) == Counter(met[B])


def test_no_garbage_collection_meanwhile_and_again_afterwards() -> None:
    seen: list[bool] = []
    time_in_turns({A: lambda number: seen.append(gc.isenabled())}, Effort(60, 1, 1), seed=0)
    assert not any(seen)
    assert gc.isenabled()


def test_the_median_lies_in_its_interval_however_uneven_the_runs_of_a_round_are() -> None:
    times = {A: np.array([[1.0, 1.0, 3.0, 3.0, 3.0]] * 40 + [[1.0] * 5] * 11)}  # of all runs the median is 1
    (row,) = summarise(Cell("cpu", 1, 1, 16), times, A)
    assert (row.p50_low_ms, row.p50_ms, row.p50_high_ms) == (3, 3, 3)


def test_an_error_in_a_run_is_not_swallowed() -> None:
    def fail(number: int) -> None:
        raise BundleError("no")

    with pytest.raises(BundleError):
        time_in_turns({A: fail}, Effort(1, 1, 1), seed=0)
    assert gc.isenabled()


def test_rows_by_hand() -> None:
    times = {A: np.array([[10.0], [20.0], [30.0]]), B: np.array([[4.0, 6.0], [5.0, 5.0], [10.0, 10.0]])}
    first, second = summarise(Cell("cpu", 1, 8, 64), times, A, others=0.0)
    assert (first.p50_ms, first.p50_low_ms, first.p50_high_ms) == (20, 10, 30)
    assert (first.runs, first.per_second, first.speedup, first.baseline) == (3, 400, None, None)
    assert (second.p50_ms, second.runs, second.per_second) == (5, 6, 1600)  # the rounds' own medians: 5, 5, 10
    assert second.p95_ms == pytest.approx(10)
    assert (second.speedup, second.speedup_low, second.speedup_high) == (3, 2, 4)
    assert second.baseline == "a onnxruntime fp32"
    assert first.reason is None
    assert first.cell == ("ids", "cpu", 1, 8, 64, None)


def test_without_the_baseline_there_is_no_speedup() -> None:
    (row,) = summarise(Cell("cuda", 1, 1, 16), {B: np.ones((5, 1))}, A)
    assert row.speedup is None
    assert row.others_cores is None


def test_rows_from_a_busy_machine_say_so() -> None:
    (row,) = summarise(Cell("cpu", cores(), 1, 16), {A: np.ones((5, 1))}, A, others=1.5)
    assert row.others_cores == 1.5
    assert "busy" in str(row.reason)


# what others took, threads, cores
BUSY = [(0.0, 1, 2, False), (0.5, 1, 2, False), (0.7, 1, 2, True), (0.05, 2, 2, False), (0.2, 2, 2, True)]


@pytest.mark.parametrize(("others", "threads", "count", "expected"), [*BUSY, (None, 2, 2, False), (3.0, 4, 16, False)])
def test_too_busy(others: float | None, threads: int, count: int, expected: bool) -> None:
    assert too_busy(others, threads, count) is expected


def test_cores_of_others_by_hand(tmp_path: Path) -> None:
    assert cores_of_others(Clocks(0, 10, 1), Clocks(4, 17, 2)) == 1.5  # 7 s of work in 4 s, 1 s of it ours
    assert cores_of_others(Clocks(0, 10, 1), Clocks(4, 10, 2)) == 0
    assert cores_of_others(Clocks(0, None, 1), Clocks(4, None, 2)) is None
    assert read_clocks(tmp_path / "absent").machine is None
    stat = tmp_path / "stat"
    lines = [f"cpu{number} 100 0 100 9999 9999 0 0 0 500 500" for number in range(512)]
    stat.write_text("\n".join(["cpu 1 1 1", *lines, "intr 5"]))
    machine = read_clocks(stat).machine
    assert machine is None or machine == pytest.approx(200 * cores() / 100)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 32, 64])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("texts", [TEXTS, []])
def test_batches_are_valid_fixed_and_as_long_as_asked(length: int, batch: int, texts: list[str]) -> None:
    file = GOLDEN / "tokenizer.json"
    made = fixed_batch(file, texts, batch, length, seed=5)
    assert {array.shape for array in made.values()} == {(batch, length)}
    assert all(array.dtype == np.int64 for array in made.values())
    assert made["attention_mask"].all()
    rows = limits(from_bundle("golden", GOLDEN)).rows
    assert 0 <= made["input_ids"].min() <= made["input_ids"].max() < rows
    again = fixed_batch(file, texts, batch, length, seed=5)
    assert np.array_equal(made["input_ids"], again["input_ids"])


def test_batches_hold_real_ids_between_the_special_ones() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    ids = fixed_batch(GOLDEN / "tokenizer.json", TEXTS, 3, 12, seed=1)["input_ids"]
    empty = tokenizer.encode("").ids
    assert ids[:, [0, -1]].tolist() == [empty] * 3
    real = {number for text in TEXTS for number in tokenizer.encode(text, add_special_tokens=False).ids}
    assert set(ids[:, 1:-1].ravel().tolist()) <= real
    assert mean_length(GOLDEN / "tokenizer.json", [TEXTS[0]], 3) == 3


def test_pairs_make_batches_too() -> None:
    pairs = [("the film is good", "a dull story")]
    assert fixed_batch(GOLDEN / "tokenizer.json", pairs, 2, 9, seed=0)["input_ids"].shape == (2, 9)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_bundle_answers_ids_and_texts_alike(threads: int) -> None:
    with open_candidate(from_bundle("golden", GOLDEN), threads, "cpu") as backend:
        labels = backend.task.num_labels
        assert backend.run(fixed_batch(GOLDEN / "tokenizer.json", TEXTS, 4, 8, 0)).shape == (4, labels)
        texts = backend.logits(TEXTS, 2)
    from export.runtime import load

    assert np.abs(texts - load(GOLDEN).logits(TEXTS)).max() < 1e-5


def test_candidates_know_their_precision_and_bytes() -> None:
    fp32, int8 = from_bundle("bundle", GOLDEN), from_folder(GOLDEN_INT8)
    assert (fp32.precision, fp32.method, fp32.name) == ("fp32", None, "bundle onnxruntime fp32")
    assert int8.precision == "int8"
    assert int8.method in ("dynamic", "static")
    assert int8.name == f"{GOLDEN_INT8.name} onnxruntime int8 {int8.method}"
    found = size(fp32)
    assert found.bytes == sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file())
    model = json.loads((GOLDEN / "bundle.json").read_text())["model"]
    assert found.weights_bytes == (GOLDEN / model).stat().st_size


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a bundle"):
        from_folder(tmp_path)
    with pytest.raises(DataError, match="expected one of torch, onnxruntime"):
        opener("tvm")
    with (
        pytest.raises(BundleError, match="expected a bundle in int8"),
        open_candidate(Candidate("a", "onnxruntime", "int8", GOLDEN), 1, "cpu"),
    ):
        pass
    with (
        pytest.raises(ProviderError, match="available: cpu"),
        open_candidate(from_bundle("golden", GOLDEN), 1, "tensorrt"),
    ):
        pass
