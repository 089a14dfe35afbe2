"""Pruning to a speed: as little as is needed, and a clear word where it is out of reach."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from test_importance import scores
from test_shared_muon import steps
from tiny_models import tiny_model
from torch import nn
from translation_models import tiny_translator

from bench.latency import Work
from compress.pruning import cost
from compress.pruning.prune import whole_cost
from compress.pruning.speed import _surely, milliseconds, speedup_over
from compress.pruning.target import _largest_share, prune_to_speed
from distill.errors import RecipeError
from distill.layers import layers
from distill.task import Task

TASK = Task("translation", (), metric="bleu", max_length=24, max_target_length=16)


@pytest.mark.parametrize(("wanted", "share"), [(1.25, 0.8), (2.0, 0.5), (8.0, 0.125)])
def test_the_largest_share_that_is_fast_enough(wanted: float, share: float) -> None:
    """A model whose time is in proportion to what is left, and that can have all of it removed."""
    found = _largest_share(lambda part: 1 / max(part, 0.01), wanted)
    assert share - 0.01 <= found <= share


def test_nothing_goes_where_it_is_fast_enough() -> None:
    assert _largest_share(lambda part: 3.0, 2.0) == 1.0


def test_a_speed_that_is_out_of_reach() -> None:
    with pytest.raises(RecipeError, match=r"2\.50 times as fast, 3 were asked for; remove layers or width, too"):
        _largest_share(lambda part: 2.5 - part, 3.0)


def test_a_model_is_pruned_by_what_it_costs() -> None:
    """Time taken for what the costs say: then the model keeps as much of them as was asked for."""
    model = tiny_model("bert")
    costs = cost.multiplications(model, 10)
    whole = whole_cost(model, costs)

    def speedup(smaller: nn.Module) -> float:
        return whole / whole_cost(smaller, costs)

    prune_to_speed(model, scores(model), costs, 1.2, speedup)
    assert 1.2 <= speedup(model) < 1.3
    assert sum(layer.size.heads for layer in layers(model)) < 16


IN_STEP = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_importance import scores
from test_shared_muon import steps
from tiny_models import tiny_model
from compress.pruning import cost
from compress.pruning.prune import whole_cost
from compress.pruning.target import prune_to_speed
from distill import processes

processes.join()
model = tiny_model("bert")
costs = cost.multiplications(model, 10)
whole = whole_cost(model, costs)
here = 1 + 0.1 * processes.place()  # each process finds another time
sizes = prune_to_speed(model, scores(model), costs, 1.2, lambda smaller: here * whole / whole_cost(smaller, costs))
Path(sys.argv[2]).write_text(str(sizes))
processes.leave()
"""


def test_processes_that_find_other_times_choose_the_same(tmp_path: Path) -> None:
    first, second = (path.read_text() for path in steps(tmp_path, 2, IN_STEP))
    assert first == second
    assert first.count("LayerSize(heads=4") < 4


@pytest.mark.parametrize("kind", ["bert", "distilbert", "marian", "t5"])
def test_real_graphs_are_timed(kind: str) -> None:
    model = tiny_translator(kind) if kind in ("marian", "t5") else tiny_model(kind)
    assert milliseconds(model, TASK, 20, 12) > 0
    assert 0.1 < speedup_over(model, TASK, 20, (3, 12))(model) < 10  # itself, on whatever machine


def test_a_small_model_is_really_faster() -> None:
    large, small = tiny_translator("marian", encoder_layers=24), tiny_translator("marian", encoder_layers=1)
    assert speedup_over(large, TASK, 20, (3, 12))(small) > 1


def test_what_takes_longer_is_surely_not_as_fast() -> None:
    def sleeping(seconds: float) -> Work:
        return lambda _: time.sleep(seconds)

    assert _surely(sleeping(0.02), sleeping(0.002)) > 1
    assert _surely(sleeping(0.002), sleeping(0.02)) < 1
