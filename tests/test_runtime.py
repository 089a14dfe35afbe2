"""A loaded bundle answers as it did when it was made, however it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_bytes import GOLDEN, GOLDEN_INT8, copy_golden, reseal

import potstill
from distill.errors import MissingExtraError, ProviderError, RecipeError
from distill.task import Task
from export.bundle import read_bundle
from export.processor import saturates, warn_of_processor
from export.providers import check_fits, check_one_distribution, check_running, execution_providers
from export.runtime import Predictor, load, verify_bundle
from export.tasks import OPEN
from export.tasks.classification import Prediction, batches, predictions, probabilities

pytestmark = pytest.mark.runtime

EXPECTED = json.loads((GOLDEN.parent / "golden-expected.json").read_text(encoding="utf-8"))
TEXTS = EXPECTED["texts"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model() -> Predictor:
    return load(GOLDEN, threads=1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = copy_golden(tmp_path_factory.mktemp("pairs"))
    reseal(folder, task=replace(read_bundle(folder).task, pair="other"))
    return load(folder, threads=1)


class Watched:
    """An onnxruntime session that remembers the shapes it was given."""

    def __init__(self, onnx: Any) -> None:
        self.onnx, self.shapes = onnx, list[tuple[int, ...]]()

    def run(self, names: Any, feed: dict[str, NDArray[Any]]) -> Any:
        self.shapes.append(feed["input_ids"].shape)
        return self.onnx.run(names, feed)


@pytest.mark.parametrize(
    ("most", "shapes"),
    [
        (None, [(5, 8)]),
        (40, [(5, 8)]),
        (39, [(4, 8), (1, 8)]),
        (16, [(2, 8), (2, 8), (1, 8)]),
        (7, [(1, 8)] * 5),  # a single text, however long
    ],
)
def test_much_is_read_in_parts(model: Predictor, most: int | None, shapes: list[tuple[int, int]]) -> None:
    ids = np.arange(40).reshape(5, 8) + 4
    watched = Watched(model.session.onnx)
    parted = replace(model, session=replace(model.session, onnx=watched, most_tokens=most))
    np.testing.assert_allclose(parted.forward({"input_ids": ids}), model.forward({"input_ids": ids}), atol=1e-5)
    assert watched.shapes == shapes


def test_each_thread_adds_to_what_is_read_at_once() -> None:
    assert [load(GOLDEN, threads=count).session.most_tokens for count in (1, 2)] == [512, 1024]


# --- the golden bundles -------------------------------------------------------------------------


def test_the_golden_bundle_answers_as_torch_did(model: Predictor) -> None:
    np.testing.assert_allclose(model.probabilities(TEXTS), EXPECTED["fp32"], atol=1e-5)
    assert model.encode(TEXTS)["input_ids"].tolist() == EXPECTED["ids"]


def test_the_golden_int8_bundle_answers_as_it_did() -> None:
    # One by one: dynamic int8 scales by what is in the batch. Another CPU may round one activation otherwise.
    found = load(GOLDEN_INT8, threads=1).probabilities(TEXTS, batch_size=1)
    np.testing.assert_allclose(found, EXPECTED["int8-dynamic"], atol=1e-2)


def test_a_prediction_is_label_score_and_whether_it_was_cut(model: Predictor) -> None:
    found = model(["a gorgeous film", "word " * 60])
    assert [(each.label, each.truncated) for each in found] == [("neutral", False), ("negative", True)]
    assert found[0].score == pytest.approx(EXPECTED["fp32"][2][1], abs=1e-5)
    assert isinstance(found[0].score, float)


def test_verify_answers_with_the_loaded_bundle() -> None:
    predictor = verify_bundle(GOLDEN_INT8)
    assert predictor.bundle.precision == "int8-dynamic"
    assert predictor.bundle_id == read_bundle(GOLDEN_INT8).id


# --- shapes, dtypes, order, batches ---------------------------------------------------------------


def test_no_texts_no_answers(model: Predictor) -> None:
    assert model([]) == []
    assert model.logits([]).shape == model.probabilities([]).shape == (0, 3)
    assert model.logits([]).dtype == model.probabilities([]).dtype == np.float32


def test_encode_feeds_forward(model: Predictor) -> None:
    inputs = model.encode(TEXTS)
    assert sorted(inputs) == ["attention_mask", "input_ids", "token_type_ids"]
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.int64)}
    np.testing.assert_allclose(model.forward(inputs), model.logits(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "most", "spare", "expected"),
    [
        ([], 4, 16, []),
        ([3, 9, 4], 4, 16, [[1, 2, 0]]),  # padding 5 + 6
        ([3, 9, 4], 4, 10, [[1, 2], [0]]),
        ([3, 9, 4], 4, None, [[1, 2, 0]]),
        ([5, 5, 5], 2, 0, [[0, 1], [2]]),
        ([1, 2, 3], 4, 0, [[2], [1], [0]]),
        ([30, 10, 10], 4, 16, [[0], [1, 2]]),
    ],
)
def test_batches_have_little_padding(
    lengths: list[int], most: int, spare: int | None, expected: list[list[int]]
) -> None:
    assert list(batches(lengths, most, spare)) == expected


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 9), st.integers(0, 40))
def test_batches_hold_each_row_once(lengths: list[int], most: int, spare: int) -> None:
    found = list(batches(lengths, most, spare))
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        assert 0 < len(rows) <= most
        assert sum(lengths[rows[0]] - lengths[row] for row in rows) <= spare


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 1000])
def test_answers_come_in_the_order_of_the_texts(model: Predictor, batch_size: int) -> None:
    np.testing.assert_allclose(model.probabilities(TEXTS, batch_size), EXPECTED["fp32"], atol=1e-5)
    backwards = model.probabilities(TEXTS[::-1], batch_size)
    np.testing.assert_allclose(backwards[::-1], EXPECTED["fp32"], atol=1e-5)


def test_more_texts_than_are_tokenized_at_once(model: Predictor) -> None:
    texts = [TEXTS[index % len(TEXTS)] for index in range(150)]
    found = model.probabilities(texts, batch_size=2)  # 128 at once
    np.testing.assert_allclose(found, [EXPECTED["fp32"][index % len(TEXTS)] for index in range(150)], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=8), st.integers(1, 4))
def test_company_does_not_change_an_answer(texts: list[str], batch_size: int) -> None:
    model = load(GOLDEN, threads=1, verify=False)
    alone = np.concatenate([model.logits([text]) for text in texts])
    np.testing.assert_allclose(model.logits(texts, batch_size), alone, atol=1e-5)


def test_padding_to_the_maximum_changes_nothing(model: Predictor) -> None:
    inputs = model.encode(["a gorgeous film"])
    padded = {name: np.pad(array, ((0, 0), (0, 27))) for name, array in inputs.items()}
    assert padded["input_ids"].shape == (1, 32)
    np.testing.assert_allclose(model.forward(padded), model.forward(inputs), atol=1e-5)


def test_several_threads_tokenize_as_one(model: Predictor) -> None:
    found = load(GOLDEN, threads=2).logits(TEXTS)
    np.testing.assert_allclose(found, model.logits(TEXTS), atol=1e-5)


# --- pairs ----------------------------------------------------------------------------------------


def test_pairs_are_told_apart_by_their_segments(pairs: Predictor) -> None:
    inputs = pairs.encode([("a gorgeous film", "dull"), ("a", "b")])
    start, end = EXPECTED["ids"][0][:2]
    ids, types = inputs["input_ids"][1].tolist(), inputs["token_type_ids"][1].tolist()
    assert ids[0] == start
    assert ids[2] == ids[4] == end
    assert types[:5] == [0, 0, 0, 1, 1]
    assert inputs["attention_mask"][1].tolist()[:6] == [1, 1, 1, 1, 1, 0]
    assert pairs([("a", "b")]) != pairs([("b", "a")])


def test_the_longer_text_of_a_pair_is_cut_first(pairs: Predictor) -> None:
    short = pairs.encode([("a b c", "film")])["input_ids"][0].tolist()
    inputs = pairs.encode([("a b c", "film " * 60)])["input_ids"][0].tolist()
    assert len(inputs) == 32
    assert inputs[:5] == short[:5]
    assert [each.truncated for each in pairs([("a b c", "film " * 60), ("a", "b")])] == [True, False]


# --- the classification head ----------------------------------------------------------------------

TASK = Task("classification", ("no", "yes"))


def test_softmax_of_hand_computed_logits() -> None:
    # e^0 / (e^0 + e^ln3) = 1/4
    np.testing.assert_allclose(probabilities(np.array([[0, np.log(3)]], np.float32)), [[0.25, 0.75]], atol=1e-7)
    np.testing.assert_allclose(probabilities(np.array([[1e4, -1e4]], np.float32)), [[1, 0]])


def test_predictions_of_hand_computed_logits() -> None:
    logits = np.array([[0, np.log(3)], [1, 1]], np.float32)
    found = predictions(TASK, logits, [False, True])
    assert found == [Prediction("yes", 0.75, False), Prediction("no", 0.5, True)]


def test_every_kind_of_task_has_its_answers() -> None:
    from distill.task import KINDS

    assert set(OPEN) == set(KINDS)


# --- threads and providers ------------------------------------------------------------------------


def test_eight_threads_on_one_predictor(model: Predictor) -> None:
    expected = model.logits(TEXTS, batch_size=4)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: model.logits(TEXTS, batch_size=4), range(80)))
    assert all(np.array_equal(each, expected) for each in found)


def test_two_predictors_at_once(model: Predictor) -> None:
    other = load(GOLDEN_INT8, threads=1)
    first = other.logits(TEXTS, batch_size=1)
    model.logits(TEXTS)
    assert np.array_equal(other.logits(TEXTS, batch_size=1), first)


@pytest.mark.parametrize(("threads", "expected"), [(None, 0), (1, 1), (2, 2)])
def test_threads_are_those_asked_for(threads: int | None, expected: int) -> None:
    options = load(GOLDEN, threads=threads).session.onnx.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (expected, 1)


def test_no_threads_are_refused() -> None:
    with pytest.raises(RecipeError, match="threads: expected at least 1, found 0"):
        load(GOLDEN, threads=0)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "abacus", ""])
def test_a_provider_that_is_not_there(provider: str) -> None:
    import onnxruntime

    if provider in ("cuda", "tensorrt") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built for GPUs")
    with pytest.raises(ProviderError, match=f"no execution provider '{provider}' here; available: cpu") as caught:
        load(GOLDEN, provider=provider)
    assert caught.value.exit_code == 2


def test_names_of_providers() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert execution_providers("cpu", available) == ["CPUExecutionProvider"]
    assert execution_providers("cuda", available) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert execution_providers("tensorrt", available) == available
    with pytest.raises(ProviderError, match="available: cpu, cuda"):
        execution_providers("tensorrt", available[1:])


@pytest.mark.parametrize(
    ("provider", "precision", "device", "why"),
    [
        ("cuda", "int8-dynamic", "cpu", "no int8 products for CUDA"),
        ("cuda", "int8-static", "tensorrt", "no int8 products for CUDA"),
        ("tensorrt", "int8-dynamic", "cpu", "fixed ranges around zero"),
        ("tensorrt", "int8-static", "cpu", "fixed ranges around zero"),
        ("tensorrt", "int4-weights", "cpu", "fixed ranges around zero"),
        ("tensorrt", "int8-static", "tensorrt", None),
        ("cuda", "fp16", "cuda", None),
        ("cuda", "fp32", "cpu", None),
        ("cuda", "int4-weights", "cpu", None),
        ("cpu", "int8-static", "tensorrt", None),
        ("cpu", "fp16", "cuda", None),
    ],
)
def test_which_provider_runs_what(provider: str, precision: str, device: str, why: str | None) -> None:
    if why is None:
        check_fits(provider, precision, device)
        return
    with pytest.raises(ProviderError, match=f"{why}.*--device {provider}"):
        check_fits(provider, precision, device)


def test_a_provider_that_was_quietly_replaced() -> None:
    check_running("cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"'cuda' did not start .*available: cpu"):
        check_running("cuda", ["CPUExecutionProvider"])


def test_both_distributions_of_onnxruntime_are_refused(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime-1.31.1.dist-info").mkdir()
    check_one_distribution([str(tmp_path)])
    (tmp_path / "onnxruntime_gpu-1.31.1.dist-info").mkdir()
    with pytest.raises(MissingExtraError, match="onnxruntime and onnxruntime-gpu are both installed"):
        check_one_distribution([str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "saturating"),
    [([], False), (["avx2"], True), (["avx2", "avx512f"], True), (["avx2", "avx_vnni"], False), (["i8mm"], False)],
)
def test_processors_that_saturate(flags: list[str], saturating: bool) -> None:
    assert saturates(flags) is saturating


@pytest.mark.parametrize(
    ("checked_on", "details", "here", "warned"),
    [
        (["avx2", "avx512_vnni"], {}, ["avx2"], True),
        (["avx2", "avx_vnni"], {"reduce_range": False}, ["avx2", "avx512f"], True),
        (["avx2", "avx512_vnni"], {"reduce_range": True}, ["avx2"], False),
        (["avx2", "avx512_vnni"], {}, ["avx2", "avx_vnni"], False),
        (["avx2", "avx512_vnni"], {}, ["asimddp"], False),
        (["avx2"], {}, ["avx2"], False),
        ("avx512_vnni", {}, ["avx2"], False),
        ([3], {}, ["avx2"], False),
    ],
)
def test_a_processor_without_vnni(checked_on: object, details: dict[str, bool], here: list[str], warned: bool) -> None:
    bundle = replace(read_bundle(GOLDEN_INT8), cpu={"flags": checked_on}, details=details)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_processor(bundle, here)
        warn_of_processor(replace(bundle, precision="fp32"), here)
    assert ["with VNNI" in str(each.message) for each in caught] == [True] * warned


# --- fresh processes ------------------------------------------------------------------------------


def run_python(code: str, *arguments: str) -> str:
    """What a new process, started in the checkout, prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_answering_imports_nothing_of_the_training_side() -> None:
    code = (
        "import sys, potstill\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "print(potstill.load(sys.argv[1], threads=1)(['a gorgeous film'])[0].label)\n"
        "heavy = 'torch transformers datasets onnx pydantic huggingface_hub importlib.metadata'.split()\n"
        "print(*[name for name in heavy if name in sys.modules])"
    )
    assert run_python(code, str(GOLDEN)) == "neutral"


def test_a_missing_onnxruntime_names_its_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['onnxruntime'] = None\n"
        "import potstill\n"
        "try:\n    potstill.load(sys.argv[1])\n"
        "except potstill.PotstillError as error:\n    print(type(error).__name__, error.exit_code, error)"
    )
    found = run_python(code, str(GOLDEN))
    assert found.startswith("MissingExtraError 2 ")
    assert "pip install 'potstill[cpu]'" in found


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_a_predictor_made_after_forking_answers() -> None:
    code = (
        "import os, sys, potstill\n"
        "pid = os.fork()\n"
        "label = potstill.load(sys.argv[1], threads=1)(['a gorgeous film'])[0].label\n"
        "if pid:\n    assert os.waitpid(pid, 0)[1] == 0\n    print(label)\n"
        "else:\n    os._exit(label != 'neutral')"
    )
    assert run_python(code, str(GOLDEN)) == "neutral"


def test_the_front_door_shows_what_it_says() -> None:
    assert potstill.__all__ == ["PotstillError", "Prediction", "Predictor", "Translation", "Translator", "load"]
    assert potstill.load is load
    assert potstill.__version__.split(".")[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = potstill.nonsense
