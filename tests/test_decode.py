"""Both searches against transformers' `generate`, over many settings."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from translation_models import TorchStep, source_batch, tiny_translator

from export.decode import search
from export.decoding import Decoding


def rules_of(model: Any, **options: Any) -> Decoding:
    config = model.config
    return Decoding(config.decoder_start_token_id, config.eos_token_id, config.pad_token_id, **options)


def generated(model: Any, ids: Any, mask: Any, rules: Decoding, n_best: int) -> tuple[list[list[int]], list[float]]:
    """What `generate` answers: tokens up to the end token, and scores where it gives any."""
    with torch.inference_mode():
        found = model.generate(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), do_sample=False,
            num_beams=rules.beams, length_penalty=rules.length_penalty, early_stopping=False,
            max_length=rules.max_length + 1, no_repeat_ngram_size=rules.no_repeat_ngram_size,
            forced_bos_token_id=rules.forced_start, forced_eos_token_id=rules.forced_end,
            bad_words_ids=[[token] for token in rules.suppressed] or None, num_return_sequences=n_best,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
    rows = [list(itertools.takewhile(lambda t: t != rules.end, row[1:])) for row in found.sequences.tolist()]
    rows = [row[: rules.max_length] for row in rows]
    if rules.beams == 1:
        return rows, []
    scores = found.sequences_scores.tolist()
    real = [index for index, score in enumerate(scores) if score > -1e8]  # others are places that nothing took
    return [rows[index] for index in real], [scores[index] for index in real]


def check(model: Any, rules: Decoding, n_best: int = 1, seed: int = 0, rows: int = 3) -> list[Any]:
    ids, mask = source_batch(model, rows, seed=seed)
    wanted, scores = generated(model, ids, mask, rules, n_best)
    found = [each for hypotheses in search(TorchStep(model, ids, mask), rows, rules, n_best) for each in hypotheses]
    assert [each.tokens for each in found] == wanted
    if scores:
        np.testing.assert_allclose([each.score for each in found], scores, atol=1e-4)
    return found


@pytest.fixture(scope="module")
def marian() -> Any:
    return tiny_translator("marian")


@pytest.mark.parametrize("kind", ["marian", "mbart", "m2m_100", "t5"])
@pytest.mark.parametrize("beams", [1, 4])
def test_every_architecture(kind: str, beams: int) -> None:
    model = tiny_translator(kind)
    check(model, rules_of(model, beams=beams, max_length=12), n_best=min(beams, 2))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    beams=st.integers(1, 5),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0, -1.0]),
    max_length=st.integers(1, 14),
    no_repeat_ngram_size=st.integers(0, 3),
    forced_start=st.none() | st.integers(3, 49),
    forced_end=st.booleans(),
    end_bias=st.sampled_from([0.0, 2.0, 4.0]),
    suppressed=st.lists(st.integers(3, 49), max_size=3, unique=True),
    seed=st.integers(0, 30),
    data=st.data(),
)
def test_any_settings(
    marian: Any,
    beams: int,
    forced_end: bool,
    end_bias: float,
    suppressed: list[int],
    seed: int,
    data: Any,
    **options: Any,
) -> None:
    rules = rules_of(
        marian, beams=beams, suppressed=(marian.config.pad_token_id, *suppressed),
        forced_end=marian.config.eos_token_id if forced_end else None, **options,
    )  # fmt: skip
    marian.final_logits_bias[0, marian.config.eos_token_id] = end_bias  # so that many end before the longest length
    check(marian, rules, data.draw(st.integers(1, beams)), seed)


def test_greedy_scores_are_log_probabilities(marian: Any) -> None:
    marian.final_logits_bias[0, marian.config.eos_token_id] = 3
    rules = rules_of(marian, max_length=10, length_penalty=0.5)
    ids, mask = source_batch(marian, 4)
    for row, [found] in enumerate(search(TorchStep(marian, ids, mask), 4, rules, scored=True)):
        ends = [] if found.stopped else [rules.end]
        target = torch.tensor([[rules.start, *found.tokens, *ends]])
        with torch.inference_mode():
            logits = marian(
                torch.from_numpy(ids[[row]]), torch.from_numpy(mask[[row]]), decoder_input_ids=target
            ).logits
        chosen = logits.log_softmax(-1)[0, :-1].gather(1, target[0, 1:, None]).sum() / (target.shape[1] - 1) ** 0.5
        assert found.score == pytest.approx(float(chosen), abs=1e-4)
