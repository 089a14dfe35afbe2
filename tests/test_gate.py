from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.quantization.gate import RULE_OF_THREE, Limits, Verdict, decide, limits, needed_examples, require
from distill.errors import DataError, GateError
from distill.metrics import Difference, paired_difference
from distill.recipe import QuantizeRecipe

SETTINGS = Limits(max_drop=0.01, margin=0.02, max_flips=0.02)


def labels(n: int, lost: int = 0, gained: int = 0):
    """Gold, fp32 and int8 labels: int8 loses `lost` right answers and wins `gained`."""
    gold = np.zeros(n, np.int64)
    fp32 = gold.copy()
    fp32[:gained] = 1
    int8 = gold.copy()
    int8[gained : gained + lost] = 1
    return gold, fp32, int8


def judged(gold, fp32, int8, metric: str = "accuracy", batch_flips: float = 0.0) -> Verdict:
    return decide(paired_difference(metric, gold, fp32, int8, 2), SETTINGS, batch_flips)


@pytest.mark.parametrize(
    ("n", "lost", "gained", "flips", "state"),
    [
        (1000, 0, 0, 0.0, "passed"),  # identical
        (1000, 5, 0, 0.0, "passed"),  # drop 0.005
        (1000, 10, 0, 0.0, "passed"),  # drop 0.01: the limit itself is allowed
        (1000, 11, 0, 0.0, "rejected"),  # drop 0.011
        (1000, 0, 50, 0.0, "passed"),  # better than fp32
        (40, 0, 0, 0.0, "undecided"),  # rule of three: 3 / 40 = 0.075 > 0.03
        (100, 0, 0, 0.0, "passed"),  # 3 / 100 = 0.03
        (99, 0, 0, 0.0, "undecided"),
        (200, 12, 12, 0.0, "undecided"),  # no drop, but 24 of 200 flipped: +-0.048
        (1000, 0, 0, 0.02, "passed"),
        (1000, 0, 0, 0.021, "rejected"),
    ],
)
def test_states(n: int, lost: int, gained: int, flips: float, state: str) -> None:
    verdict = judged(*labels(n, lost, gained), batch_flips=flips)
    assert verdict.state == state
    assert bool(verdict.reasons) == (state != "passed")


def test_a_rejection_says_by_how_much_with_interval_and_n() -> None:
    verdict = judged(*labels(500, 30))
    (reason,) = verdict.reasons
    assert "accuracy drops by 0.0600" in reason
    assert "95 % interval" in reason
    assert "n=500" in reason
    assert "0.0500 more than max_drop 0.01" in reason


def test_undecided_says_how_many_examples_would_do() -> None:
    verdict = judged(*labels(200, 12, 12))
    # 12 % flipped, 0.03 of room: 0.12 * (1.96 / 0.03)^2 = 512.2
    assert verdict.reasons[0].startswith("undecided: n=200, need about 513;")


def test_the_number_asked_for_decides_if_the_rates_stay() -> None:
    drop = judged(*labels(200, 12, 12)).drop
    needed = needed_examples(drop, 0.03)
    flips = round(0.06 * needed)
    assert judged(*labels(needed, flips, flips)).upper == pytest.approx(0.03, abs=0.003)


def test_both_reasons_of_a_rejection_are_given() -> None:
    verdict = judged(*labels(500, 30), batch_flips=0.5)
    assert len(verdict.reasons) == 2
    assert "50.00% of the answers depend on the rest of the batch" in verdict.reasons[1]


def test_macro_f1_is_judged_by_macro_f1() -> None:
    gold, fp32, int8 = labels(1000, 5)
    gold[-3:] = fp32[-3:] = 1  # a rare label that int8 never finds
    assert judged(gold, fp32, int8).state == "passed"
    assert judged(gold, fp32, int8, metric="macro_f1").state == "rejected"


def test_no_examples_cannot_be_judged() -> None:
    with pytest.raises(DataError):
        judged([], [], [])


def test_verdicts_are_json_and_ordered() -> None:
    verdicts = [judged(*labels(n, lost)) for n, lost in ((500, 90), (40, 0), (500, 0))]
    assert [verdict.rank for verdict in verdicts] == [0, 1, 2]
    assert json.loads(json.dumps(verdicts[0].to_json(), allow_nan=False))["state"] == "rejected"


def test_require_names_every_method() -> None:
    bad = judged(*labels(500, 90))
    small = judged(*labels(40))
    with pytest.raises(GateError) as caught:
        require(False, [("dynamic", bad), ("static", small)], "rejected-bundle")
    text = str(caught.value)
    assert "rejected or undecided" in text
    assert "rejected-bundle" in text
    assert "dynamic: accuracy drops by 0.1800" in text
    assert "static: undecided: n=40, need about 100" in text
    require(True, [], "bundle")


@given(st.integers(1, 400), st.data())
def test_the_state_follows_from_the_figures(n: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, n))
    gained = data.draw(st.integers(0, n - lost))
    gold, fp32, int8 = labels(n, lost, gained)
    verdict = judged(gold, fp32, int8)
    assert verdict.drop.value == pytest.approx((lost - gained) / n)
    assert verdict.drop == paired_difference("accuracy", gold, fp32, int8, 2)
    assert verdict.upper >= RULE_OF_THREE / n
    if verdict.state == "passed":
        assert verdict.drop.value <= 0.01 + 1e-9
        assert verdict.upper <= 0.03 + 1e-9
    assert (verdict.state == "rejected") == (100 * (lost - gained) > n)


def of_bleu(value: float, half: float, n: int = 1000, flipped: int = 300) -> Difference:
    """A loss of BLEU with an interval of `half` to both sides."""
    return Difference("bleu", value, value - half, value + half, n, flipped, "s")


BLEU = [
    (of_bleu(0, 0, flipped=0), "passed"),
    (of_bleu(0.3, 0.7), "passed"),  # both limits are met exactly
    (of_bleu(0.31, 0.1), "rejected"),
    (of_bleu(-2, 0.5), "passed"),
    (of_bleu(0.2, 0.9), "undecided"),
    (of_bleu(0, 0, n=299, flipped=0), "undecided"),  # 100 * 3 / 299 is more than 1
    (of_bleu(0, 0, n=300, flipped=0), "passed"),
]


@pytest.mark.parametrize(("drop", "state"), BLEU)
def test_translation_is_judged_in_points_of_bleu(drop: Difference, state: str) -> None:
    assert decide(drop, limits(QuantizeRecipe(), "translation"), batch_flips=0.4).state == state


def test_how_many_sentences_would_do_by_hand() -> None:
    assert needed_examples(of_bleu(0.2, 1.6), 1.0) == 4000  # half the width takes four times as many
    assert needed_examples(of_bleu(0.2, 0.1), 1.0) == 300  # 3 / n of 100 points
    (reason,) = decide(of_bleu(0.2, 1.6), limits(QuantizeRecipe(), "translation")).reasons
    assert reason.startswith("undecided: n=1000, need about 4000; bleu drops by 0.2000 (95 % interval -1.4000 to")


def test_what_the_recipe_gives_goes_before_what_is_usual() -> None:
    assert limits(QuantizeRecipe(margin=0, max_flips=0.5), "classification") == Limits(0.01, 0, 0.5)
    assert limits(QuantizeRecipe(max_drop=2), "translation") == Limits(2, 0.7, 1)
