from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from compress.seeds import markdown, mean, repeat, seeds_of, summarise
from distill.errors import RecipeError
from distill.files import read_json
from distill.progress import silent
from distill.recipe import parse


def test_the_mean_and_its_t_interval_by_hand() -> None:
    found = mean("m", [0.1, 0.2, 0.3])  # sd 0.1, t(0.975, 2) = 4.302653
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)


def test_one_value_has_no_interval() -> None:
    assert (mean("m", [0.5]).low, mean("m", [0.5]).high) == (-math.inf, math.inf)


def test_claims_are_made_seed_by_seed() -> None:
    scores = {
        "teacher": [0.8, 0.5],
        "student": [0.7, 0.6],
        "bundle": [0.4, 0.5],
        "student, labels alone": [0.6, 0.65],
    }
    rows = {row.model: row for row in summarise(scores)}
    assert rows["bundle / teacher"].values == pytest.approx((0.5, 1.0))
    assert rows["student - labels alone"].values == pytest.approx((0.1, -0.05))
    assert "pruned - labels alone" not in rows
    assert "| student - labels alone | 0.0250 |" in markdown(list(rows.values()))


def test_a_seed_is_run_with_its_twin(project: Any, tmp_path: Path) -> None:
    recipe = parse({**project.value(), "prune": None, "quantize": None}, "toy")
    rows = repeat(project.recipe, recipe, [3], tmp_path / "seeds", silent)
    names = {"teacher", "student", "fp32", "student, labels alone", "student - labels alone"}
    assert {row.model for row in rows} == names
    written = read_json(tmp_path / "seeds" / "seeds.json")
    assert (written["seeds"], written["rows"][0]["low"]) == ([3], None)
    runs = [read_json(path / "student" / "run.json") for path in _runs(tmp_path)]
    assert [run["fingerprint"]["settings"]["student"]["alpha"] for run in runs] == [recipe.student.alpha, 0.0]
    assert runs[0]["fingerprint"]["inputs"] == runs[1]["fingerprint"]["inputs"]  # one teacher, asked once


def test_translation_is_refused(tmp_path: Path) -> None:
    least = {"name": "toy", "data": {"source": "a.tsv"}, "teacher": {"model": "m"}, "task": {"kind": "translation"}}
    with pytest.raises(RecipeError, match="for classification alone, not for translation"):
        repeat(tmp_path / "toy.yaml", parse(least, "toy"), [1], tmp_path / "seeds", silent)


def _runs(folder: Path) -> list[Path]:
    """The run and its twin."""
    run = folder / "seeds" / "seed-3"
    return [run, run / "labels-alone"]


def test_seeds_are_numbers() -> None:
    assert seeds_of("1, 2,30") == [1, 2, 30]
    for text in ("", "1,,2", "a", "-1", "1;2"):
        with pytest.raises(RecipeError, match="parted by commas"):
            seeds_of(text)
