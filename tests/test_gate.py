from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.gate import RULE_OF_THREE, decide, needed_examples, require
from distill.errors import DataError, GateError
from distill.metrics import paired_difference
from distill.recipe import QuantizeRecipe

SETTINGS = QuantizeRecipe(max_drop=0.01, margin=0.02, max_flips=0.02)


def labels(n: int, lost: int = 0, gained: int = 0):
    """Gold, fp32 and int8 labels: int8 loses `lost` right answers and wins `gained`."""
    gold = np.zeros(n, np.int64)
    fp32 = gold.copy()
    fp32[:gained] = 1
    int8 = gold.copy()
    int8[gained : gained + lost] = 1
    return gold, fp32, int8


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
    verdict = decide(*labels(n, lost, gained), SETTINGS, metric="accuracy", num_labels=2, batch_flips=flips)
    assert verdict.state == state
    assert bool(verdict.reasons) == (state != "passed")


def test_a_rejection_says_by_how_much_with_interval_and_n() -> None:
    verdict = decide(*labels(500, 30), SETTINGS, metric="accuracy", num_labels=2)
    (reason,) = verdict.reasons
    assert "accuracy drops by 0.0600" in reason
    assert "95 % interval" in reason
    assert "n=500" in reason
    assert "0.0500 more than max_drop 0.01" in reason


def test_undecided_says_how_many_examples_would_do() -> None:
    verdict = decide(*labels(200, 12, 12), SETTINGS, metric="accuracy", num_labels=2)
    # 12 % flipped, 0.03 of room: 0.12 * (1.96 / 0.03)^2 = 512.2
    assert verdict.reasons[0].startswith("undecided: n=200, need about 513;")


def test_the_number_asked_for_decides_if_the_rates_stay() -> None:
    drop = decide(*labels(200, 12, 12), SETTINGS, metric="accuracy", num_labels=2).drop
    needed = needed_examples(drop, 0.03)
    flips = round(0.06 * needed)
    assert decide(*labels(needed, flips, flips), SETTINGS, metric="accuracy", num_labels=2).upper == pytest.approx(
        0.03, abs=0.003
    )


def test_both_reasons_of_a_rejection_are_given() -> None:
    verdict = decide(*labels(500, 30), SETTINGS, metric="accuracy", num_labels=2, batch_flips=0.5)
    assert len(verdict.reasons) == 2
    assert "50.00% of the labels depend on the rest of the batch" in verdict.reasons[1]


def test_macro_f1_is_judged_by_macro_f1() -> None:
    gold, fp32, int8 = labels(1000, 5)
    gold[-3:] = fp32[-3:] = 1  # a rare label that int8 never finds
    assert decide(gold, fp32, int8, SETTINGS, metric="accuracy", num_labels=2).state == "passed"
    assert decide(gold, fp32, int8, SETTINGS, metric="macro_f1", num_labels=2).state == "rejected"


def test_no_examples_cannot_be_judged() -> None:
    with pytest.raises(DataError):
        decide([], [], [], SETTINGS, metric="accuracy", num_labels=2)


def test_verdicts_are_json_and_ordered() -> None:
    verdicts = [
        decide(*labels(n, lost), SETTINGS, metric="accuracy", num_labels=2)
        for n, lost in ((500, 90), (40, 0), (500, 0))
    ]
    assert [verdict.rank for verdict in verdicts] == [0, 1, 2]
    assert json.loads(json.dumps(verdicts[0].to_json(), allow_nan=False))["state"] == "rejected"


def test_require_names_every_method() -> None:
    bad = decide(*labels(500, 90), SETTINGS, metric="accuracy", num_labels=2)
    small = decide(*labels(40), SETTINGS, metric="accuracy", num_labels=2)
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
    verdict = decide(gold, fp32, int8, SETTINGS, metric="accuracy", num_labels=2)
    assert verdict.drop.value == pytest.approx((lost - gained) / n)
    assert verdict.drop == paired_difference("accuracy", gold, fp32, int8, 2)
    assert verdict.upper >= RULE_OF_THREE / n
    if verdict.state == "passed":
        assert verdict.drop.value <= 0.01 + 1e-9
        assert verdict.upper <= 0.03 + 1e-9
    assert (verdict.state == "rejected") == (100 * (lost - gained) > n)
