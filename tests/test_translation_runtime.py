"""A loaded translation bundle answers as it did when it was made, however it is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_bytes import reseal

from distill.errors import BundleError, RecipeError
from distill.task import Task
from export.runtime import Predictor, Translation, Translator, load, load_as, verify_bundle
from export.steps import Writing
from export.tasks.translation import _batches
from export.texts import Tokens

pytestmark = pytest.mark.runtime

DATA = Path(__file__).resolve().parent / "data"
GOLDEN, GOLDEN_INT8 = DATA / "golden-translation", DATA / "golden-translation-int8"
EXPECTED = json.loads((DATA / "golden-translation-expected.json").read_text(encoding="utf-8"))
TEXTS = EXPECTED["texts"]


@pytest.fixture(scope="module")
def model() -> Translator:
    return load_as(Translator, GOLDEN, threads=1)


def copied(folder: Path, **changes: Any) -> Path:
    """A copy of the golden bundle with some of bundle.json changed."""
    shutil.copytree(GOLDEN, folder)
    reseal(folder, **changes)
    return folder


def as_json(answer: Translation) -> dict[str, Any]:
    return {
        "text": answer.text,
        "score": answer.score if answer.score is None else pytest.approx(answer.score, abs=1e-4),
        "truncated": answer.truncated,
        "stopped": answer.stopped,
        "others": [as_json(other) for other in answer.others],
    }


# --- the golden bundles ---------------------------------------------------------------------------


@pytest.mark.parametrize(("search", "options"), [("greedy", {}), ("beams", {"beams": 4, "n_best": 2})])
def test_the_golden_bundle_answers_as_it_did(model: Translator, search: str, options: dict[str, int]) -> None:
    assert [as_json(each) for each in model(TEXTS, scores=True, **options)] == EXPECTED["fp32"][search]


def test_the_golden_int8_bundle_answers_as_it_did() -> None:
    # One by one: dynamic int8 scales by what is in the batch. Another CPU may round one activation otherwise.
    model = load_as(Translator, GOLDEN_INT8, threads=1)
    found = [model([text])[0].text for text in TEXTS]
    same = sum(text == wanted["text"] for text, wanted in zip(found, EXPECTED["int8-dynamic"]["greedy"], strict=True))
    assert same >= len(TEXTS) - 2


def test_a_translation_says_what_happened_to_it(model: Translator) -> None:
    short, long = model(["rosso legge", "casa " * 60])
    assert (short.truncated, long.truncated) == (False, True)
    assert short.score is None  # greedy, and nobody asked
    assert model(["rosso legge"], scores=True)[0].score is not None
    assert model(["rosso legge"], max_length=2)[0].stopped
    assert short.others == ()


def test_verify_answers_with_the_loaded_bundle() -> None:
    assert isinstance(verify_bundle(GOLDEN_INT8), Translator)


def test_each_kind_has_its_own_door() -> None:
    assert isinstance(load(GOLDEN), Translator)
    with pytest.raises(BundleError, match="expected a bundle for a Predictor, found one for translation"):
        load_as(Predictor, GOLDEN)
    with pytest.raises(BundleError, match="expected a bundle for a Translator, found one for classification"):
        load_as(Translator, DATA / "golden-bundle")


# --- batches --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 100))
def test_batches_hold_each_row_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    tokens = [Tokens([0] * length, [0] * length, False) for length in lengths]
    batches = list(_batches(range(len(lengths)), tokens, budget))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget


# --- options --------------------------------------------------------------------------------------


def test_beams_come_with_scores_and_the_next_best(model: Translator) -> None:
    [answer] = model(["il gatto dorme oggi"], beams=4, n_best=3)
    scores = [answer.score, *(other.score for other in answer.others)]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert model(["il gatto dorme oggi"], beams=4)[0].others == ()


def test_a_lower_length_penalty_prefers_shorter_texts(model: Translator) -> None:
    texts = [text for text in TEXTS if text.strip()]
    short, long = (model(texts, beams=4, length_penalty=penalty) for penalty in (-2.0, 4.0))
    assert sum(len(each.text) for each in short) < sum(len(each.text) for each in long)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"beams": 0}, "beams: expected a whole number from 1"),
        ({"max_length": 17}, "max_length: this bundle writes at most 16 tokens"),
        ({"n_best": 2}, "n_best: expected 1 to beams"),
        ({"batch_tokens": 0}, "batch_tokens: at least 1"),
        ({"length_penalty": "high"}, "length_penalty: expected a number"),
        ({"no_repeat_ngram_size": 1.5}, "no_repeat_ngram_size: expected a whole number"),
    ],
)
def test_options_that_do_not_fit(model: Translator, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        model(["gatto"], **options)
    assert problem in str(caught.value)


def test_the_bundle_decides_what_is_not_said(tmp_path: Path, model: Translator) -> None:
    decoding = {**model.decoding.to_json(), "beams": 3}
    other = load_as(Translator, copied(tmp_path / "bundle", details={"decoding": decoding}), threads=1)
    assert other(["il gatto"]) == model(["il gatto"], beams=3)


# --- steps ----------------------------------------------------------------------------------------


def test_several_tokens_at_once_are_as_one_by_one(model: Translator) -> None:
    ids = np.array([[5, 6, 7, 1], [8, 1, 0, 0]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    target = np.array([[0, 4, 9, 4], [0, 7, 7, 8]])
    slow, fast = model.engine.start(ids, mask), model.engine.start(ids, mask)
    for position in range(3):
        slow(target[:, position])
    fast(target[:, :2])
    np.testing.assert_allclose(slow(target[:, 3]), fast(target[:, 2:]), atol=1e-5)


def test_rows_and_sentences_can_leave_and_change_places(model: Translator) -> None:
    ids, mask = np.array([[5, 6, 7, 1], [8, 9, 4, 1]]), np.ones((2, 4), np.int64)
    first = np.array([0, 0, 0, 0])
    both = model.engine.start(ids[[0, 0, 1, 1]], mask[[0, 0, 1, 1]])
    both(first)
    both(np.array([3, 4, 5, 6]))
    wanted = both(np.array([7, 7, 8, 8]), np.array([3, 2, 3, 3]), np.array([3, 2, 3, 3]))
    beams = model.engine.start(ids, mask)
    beams(first[:2])
    beams(np.array([3, 4, 5, 6]), np.array([0, 0, 1, 1]))
    found = beams(np.array([7, 7, 8, 8]), np.array([3, 2, 3, 3]), np.array([1]))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_logits_that_are_no_numbers_are_refused(model: Translator) -> None:
    step = model.engine.start(np.array([[5, 1]]), np.ones((1, 2), np.int64))
    assert isinstance(step, Writing)
    step.feed["past_keys.0"] = np.full((1, *model.engine.caches["past_keys.0"][:1], 1, 4), np.nan, np.float32)
    with pytest.raises(BundleError):
        step(np.array([0]))


# --- bundles that lie -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"details": {}}, "does not say how to decode"),
        ({"details": {"decoding": {"start": 0}}}, "details.decoding.end"),
        ({"task": Task("classification", ("no", "yes"), max_length=24)}, "is not the model that bundle.json describes"),
        ({"inputs": ["input_ids"]}, "is not the model that bundle.json describes"),
        ({"outputs": ["logits", "keys.0"]}, "is not the model that bundle.json describes"),
        ({"task": Task("translation", (), max_length=400, metric="bleu")}, "max_length is 400"),
    ],
)
def test_bundles_that_do_not_fit_their_model(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        load(copied(tmp_path / "bundle", **changes))
    assert problem in str(caught.value)


def test_a_classifier_is_no_translator(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(DATA / "golden-bundle", folder)
    details = {"decoding": {"start": 0, "end": 1, "pad": 0, "max_length": 3}}
    reseal(folder, task=Task("translation", (), metric="bleu", max_length=16), details=details)
    with pytest.raises(BundleError, match="is not the model that"):
        load(folder)


def test_answering_imports_nothing_of_the_training_side() -> None:
    code = (
        "import sys, potstill\n"
        "print(potstill.load(sys.argv[1], threads=1)(['rosso legge'])[0].text)\n"
        "heavy = 'torch transformers datasets onnx pydantic huggingface_hub importlib.metadata'.split()\n"
        "print(*[name for name in heavy if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(GOLDEN)]
    done = subprocess.run(command, cwd=DATA.parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [EXPECTED["fp32"]["greedy"][TEXTS.index("rosso legge")]["text"], ""]
