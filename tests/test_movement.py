"""Movement pruning: the schedule, what scores learn, that what is masked in the end is what is removed."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_runs import Project
from pydantic import ValidationError
from test_importance import batches, pairs, row_loss, word_losses
from test_pruning_step import from_teacher, pruned
from test_steps import opened
from test_training import SETTINGS, TASK, by_label, split
from tiny_models import KINDS, answer, tiny_batch, tiny_model
from toy_translation import TRAINING, write_translation_project
from transformers import TrainerCallback
from translation_models import MODELS, tiny_translator

from compress import steps
from compress.pruning.movement import SCORES, masked_share, moving
from compress.pruning.prune import prune
from distill.batches import encode
from distill.checkpoint import load_model, load_tokenizer
from distill.errors import InterruptedRunError
from distill.layers import layers
from distill.progress import silent
from distill.recipe import PruneRecipe, TrainingRecipe
from distill.steps import run_label, run_student, run_teach
from distill.training import Course, train

NOTHING: Any = None


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0), (6, 0), (23, 1 - 0.5**3), (40, 1), (60, 1), (32, 1 - (8 / 34) ** 3)]
)
def test_the_schedule_by_hand(step: int, share: float) -> None:
    """Of 60 steps nothing goes in the first 6, and all has gone after 40."""
    assert masked_share(step, 60) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("kind", [*KINDS, *MODELS])
def test_scores_get_the_gradient_of_the_masks(kind: str) -> None:
    """It is the sum of W * dL/dW over the columns that read a unit, where nothing is masked."""
    model: Any = tiny_model(kind) if kind in KINDS else tiny_translator(kind)
    batch, loss = (batches()[0], row_loss) if kind in KINDS else (pairs(), word_losses)
    with moving(model, 0.5, 0.5) as movement:
        loss(model, batch).sum().backward()  # type: ignore[no-untyped-call]
        for units in movement.units:
            products = (units.out.weight * units.out.weight.grad).sum(0).reshape(-1, units.width).sum(1)  # type: ignore[operator]
            torch.testing.assert_close(getattr(units.out, SCORES).grad, products, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, "marian", "t5"])
def test_what_is_masked_is_what_is_removed(kind: str) -> None:
    model: Any = tiny_model(kind) if kind in KINDS else tiny_translator(kind)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            rest = {key: value for key, value in pairs().items() if key != "labels"}
            return answer(model, tiny_batch()) if kind in KINDS else model(**rest).logits

    whole = logits()
    with moving(model, 0.5, 0.5) as movement:
        assert torch.equal(logits(), whole)
        torch.manual_seed(3)
        for units in movement.units:
            with torch.no_grad():
                getattr(units.out, SCORES).normal_()
        movement.mask(0.5)
        half = logits()
        movement.mask(1.0)
        masked, scores = logits(), movement.scores
    assert torch.equal(logits(), whole), "the model is as it was"
    assert not any(SCORES in name for name, _ in model.named_parameters())
    prune(model, scores, 0.5, 0.5)
    torch.testing.assert_close(logits(), masked, rtol=1e-4, atol=1e-4)
    assert (masked - whole).abs().max() > 0.01 and not torch.equal(half, masked)


def test_what_is_masked_can_come_back() -> None:
    model = tiny_model("bert")
    with moving(model, 0.25, 0.0) as movement:
        first = movement.found[0].heads
        score = getattr(first.out, SCORES)
        for head in (1, 2):
            with torch.no_grad():
                score.zero_()[head] = -1.0
            movement.mask(1 / 4)
            assert movement.masks[id(first)].tolist() == [float(each != head) for each in range(4)]


def test_the_best_of_a_training_is_one_with_everything_masked() -> None:
    with moving(tiny_model("bert"), 0.5, 0.5) as movement:
        for best, metric in ((None, None), (30, None), (40, 0.9)):
            state: Any = SimpleNamespace(best_global_step=best, best_metric=0.9, max_steps=60)
            movement.on_evaluate(NOTHING, state, NOTHING)
            assert state.best_metric == metric


def test_a_training_that_goes_on_masks_what_it_masked() -> None:
    with moving(tiny_model("bert"), 0.5, 0.5) as movement:
        state: Any = SimpleNamespace(global_step=50, max_steps=60)
        movement.on_train_begin(NOTHING, state, NOTHING)
        assert sum(float((1 - movement.masks[id(layer.heads)]).sum()) for layer in movement.found) == 8


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"speedup": 2.0}, "speedup"),
        ({"parameters": 0.5}, "parameters"),
        ({"sparsity": 0.5}, "sparsity"),
        ({"rounds": 2}, "rounds"),
        ({"training": None}, "training: null"),
        ({"training": {"ema_decay": 0.9}}, "training.ema_decay"),
        ({"training": {"early_stopping_patience": 1}}, "training.early_stopping_patience"),
    ],
)
def test_what_movement_cannot_go_with(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=f"one training to its end, found {named}"):
        PruneRecipe(importance="movement", **keys)


def test_a_classifier(project: Project, finished_run: Path, tmp_path: Path) -> None:
    training = {"num_train_epochs": 3, "learning_rate": 0.001, "bf16": False}
    run_ = from_teacher(
        project, finished_run, tmp_path / "run", heads=0.5, neurons=0.0, importance="movement", training=training
    )
    result = pruned(run_)
    assert sum(size["heads"] for size in result["layers"]) == 8
    assert 3 * result["best_step"] >= 2 * result["steps"], "what was judged with less masked does not count"
    model = load_model(run_.folder / "pruned")
    assert [layer.size.to_json() for layer in layers(model)] == result["layers"]
    steps.run_export(run_, "pruned", "fp32")


def test_a_translation_model(tmp_path: Path) -> None:
    prune_ = {"heads": 0.25, "neurons": 0.5, "importance": "movement", "training": TRAINING}
    run_ = opened(write_translation_project(tmp_path / "toy", prune=prune_), tmp_path / "run")
    for make in (run_teach, run_label, run_student):
        make(run_)
    result = pruned(run_)
    assert sum(size["heads"] + size.get("cross_heads", 0) for size in result["layers"]) == 12  # of 16
    steps.run_export(run_, "pruned", "fp32")


class Stop(TrainerCallback):  # type: ignore[misc]
    """Asks for a stop at a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("optim", ["adamw_torch", "muon"])
def test_a_training_that_was_cut_off_learns_the_same_scores(tiny_checkpoint: Path, tmp_path: Path, optim: str) -> None:
    tokenizer = load_tokenizer(tiny_checkpoint)
    train_rows, validation = (encode(tokenizer, split(rows, rows), TASK) for rows in (48, 32))
    recipe = TrainingRecipe.model_validate(SETTINGS | {"num_train_epochs": 3, "optim": optim})

    def learned(work: Path, stops: Sequence[int]) -> list[Any]:
        for step in (*stops, 0):
            model = load_model(tiny_checkpoint)
            with moving(model, 0.5, 0.5) as movement:
                course = Course("prune", train_rows, validation, by_label, TASK, 7, watchers=(movement, Stop(step)))
                with pytest.raises(InterruptedRunError) if step else nullcontext():
                    train(model, tokenizer, course, recipe, work, silent)
                scores = movement.scores
        return [*(score for each in scores for score in each.values()), *model.state_dict().values()]

    at_once = learned(tmp_path / ".work-a", [])
    in_parts = learned(tmp_path / ".work-b", [3, 7])
    assert any(score.any() for score in at_once[:2])
    assert all(torch.equal(one, other) for one, other in zip(at_once, in_parts, strict=True))
