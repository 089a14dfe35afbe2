"""Training that is stopped, killed or damaged anywhere ends with the same weights; numbers that end, stop it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_rows
from safetensors.torch import load_file
from torch import nn

from distill.batches import ByLength, collate, encode
from distill.checkpoint import load_model, load_tokenizer
from distill.data import Split
from distill.errors import InterruptedRunError, RunError
from distill.losses import hard_loss
from distill.progress import Report, silent
from distill.recipe import TrainingRecipe
from distill.resume import checkpoints, fault
from distill.task import Task
from distill.training import Course, Loss, train

TASK = Task("classification", ("negative", "positive"), max_length=32)
SETTINGS: dict[str, Any] = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 16,
    "learning_rate": 0.01,
    "logging_steps": 2,
    "bf16": False,
}
"""96 rows: 6 steps an epoch, 18 in all."""


def split(count: int, seed: int) -> Split:
    rows = toy_rows(count, seed)
    return Split(tuple(text for text, _ in rows), None, tuple(TASK.labels.index(label) for _, label in rows))


def by_label(logits: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return hard_loss(logits, labels)


class Bench:
    """A model, its rows, and a folder to train it in."""

    def __init__(self, encoder: Path, folder: Path) -> None:
        self.encoder = encoder
        self.work = folder / ".work-teach"
        self.tokenizer = load_tokenizer(encoder)
        self.train, self.validation = (encode(self.tokenizer, split(n, n), TASK) for n in (96, 64))

    def run(self, report: Report = silent, loss: Loss = by_label, **settings: Any) -> tuple[str, dict[str, Any]]:
        """The sha of the trained weights and what happened, of one call of `train` with a fresh model."""
        model = load_model(self.encoder, TASK, 1)
        course = Course("teach", self.train, self.validation, loss, TASK, 7)
        recipe = TrainingRecipe.model_validate(SETTINGS | settings)
        self.work.mkdir(parents=True, exist_ok=True)
        return state_sum(model, train(model, self.tokenizer, course, recipe, self.work, report))

    @staticmethod
    def lines(run: Path) -> list[dict[str, Any]]:
        """The journal."""
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def state_sum(model: nn.Module, result: Any) -> tuple[str, dict[str, Any]]:
    import hashlib

    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest(), {key: result[key] for key in ("steps", "best", "best_step")}


@pytest.fixture
def bench(tiny_encoder: Path, tmp_path: Path) -> Bench:
    return Bench(tiny_encoder, tmp_path / "run")


Uninterrupted = Callable[..., tuple[tuple[str, dict[str, Any]], Path]]


@pytest.fixture(scope="module")
def uninterrupted(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """What a training without incident ends with, and the run folder it leaves: not to be changed, only copied."""
    known: dict[str, tuple[tuple[str, dict[str, Any]], Path]] = {}

    def run(**settings: Any) -> tuple[tuple[str, dict[str, Any]], Path]:
        key = json.dumps(settings, sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp("whole") / "run"
            known[key] = Bench(tiny_encoder, folder).run(**settings), folder
        return known[key]

    return run


@pytest.fixture(scope="module")
def cut(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a training over two epochs with two checkpoints, stopped in the middle of the second."""
    bench = Bench(tiny_encoder, tmp_path_factory.mktemp("cut") / "run")
    for step in (3, 8):
        with pytest.raises(InterruptedRunError):
            bench.run(terminate_at(step), num_train_epochs=2)
    return bench.work.parent


PATIENT: dict[str, Any] = {"num_train_epochs": 9, "early_stopping_patience": 2}


class CrashedError(Exception):
    """Stands for anything that ends a process."""


def crash_at(step: int) -> Report:
    def report(label: str, done: int, total: int) -> None:
        if done >= step:
            raise CrashedError

    return report


def terminate_at(step: int) -> Report:
    sent = []

    def report(label: str, done: int, total: int) -> None:
        if done >= step and not sent:
            sent.append(done)
            os.kill(os.getpid(), signal.SIGTERM)

    return report


KINDS: dict[str, dict[str, Any]] = {
    "epochs": {},
    "steps": {"eval_strategy": "steps", "eval_steps": 4},
    "accumulated": {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 1},
    "cut in an epoch's middle": {"max_steps": 15},
    "averaged": {"ema_decay": 0.9},
}


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_crashed_again_and_again_it_ends_with_the_same_weights(
    bench: Bench, uninterrupted: Uninterrupted, kind: str
) -> None:
    whole, _ = uninterrupted(**KINDS[kind])
    for step in (1, 5, 11, 13):
        with pytest.raises(InterruptedRunError):
            bench.run(terminate_at(step), **KINDS[kind])
        if step == 5:
            with pytest.raises(CrashedError):
                bench.run(crash_at(9), **KINDS[kind])
    assert bench.run(**KINDS[kind]) == whole
    assert bench.run(**KINDS[kind]) == whole, "a training that is over takes no further step"


def test_what_is_judged_and_kept_is_the_average(bench: Bench, uninterrupted: Uninterrupted) -> None:
    (plain, _), _ = uninterrupted()
    model = load_model(bench.encoder, TASK, 1)
    course = Course("teach", bench.train, bench.validation, by_label, TASK, 7)
    bench.work.mkdir(parents=True)
    found = train(model, bench.tokenizer, course, TrainingRecipe(**SETTINGS, ema_decay=0.9), bench.work, silent)
    assert state_sum(model, found)[0] != plain
    kept = load_file(bench.work / f"checkpoint-{found['best_step']}" / "model.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    inputs = collate(bench.tokenizer, bench.validation)
    labels, _ = inputs.pop("labels"), inputs.pop("row")
    with torch.inference_mode():
        right = model.eval()(**inputs).logits.argmax(-1) == labels
    assert found["best"] == pytest.approx(right.float().mean().item())


def test_a_stop_saves_at_the_next_step_at_the_latest(bench: Bench) -> None:
    for step in (2, 7, 15, 18):
        with pytest.raises(InterruptedRunError) as error:
            bench.run(terminate_at(step))
        assert error.value.exit_code == 130
        assert checkpoints(bench.work)[0].name in (f"checkpoint-{step}", f"checkpoint-{step + 1}")
        assert fault(checkpoints(bench.work)[0]) is None


def test_killed_in_the_evaluation_after_a_stop_was_asked_for(bench: Bench, uninterrupted: Uninterrupted) -> None:
    """The epoch's evaluation is not missed by what goes on from there."""

    def loss(logits: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        if not logits.requires_grad:
            raise CrashedError
        return hard_loss(logits, labels)

    with pytest.raises(CrashedError):
        bench.run(terminate_at(5), loss)
    assert not checkpoints(bench.work)
    assert bench.run() == uninterrupted()[0]


def test_each_epoch_has_its_own_order_of_rows(bench: Bench) -> None:
    seen: list[tuple[int, ...]] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        if logits.requires_grad:
            seen.append(tuple(labels.tolist()))
        return hard_loss(logits, labels)

    bench.run(loss=loss)
    epochs = [seen[:6], seen[6:12], seen[12:]]
    assert len({str(epoch) for epoch in epochs}) == 3
    assert [sum(map(sum, epoch)) for epoch in epochs] == [48, 48, 48], "half of the rows are positive"


def test_no_step_stands_twice_in_the_journal(bench: Bench, uninterrupted: Uninterrupted) -> None:
    whole = Bench.lines(uninterrupted()[1])
    bench.work.parent.mkdir()
    other = {"stage": "student", "step": 3, "loss": 0.5}
    (bench.work.parent / "metrics.jsonl").write_text(json.dumps(other) + '\n{"stage": "teach", "st')
    for step in (5, 16):
        with pytest.raises(CrashedError):
            bench.run(crash_at(step))
    bench.run()
    found = Bench.lines(bench.work.parent)
    assert found[0] == other
    assert [(line["step"], sorted(line)) for line in found[1:]] == [(line["step"], sorted(line)) for line in whole]


def test_early_stopping_stops_where_it_would_have(bench: Bench, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    whole, finished = uninterrupted(**PATIENT)
    best, last = whole[1]["best_step"], whole[1]["steps"]
    assert best < last < 54
    with pytest.raises(CrashedError):
        bench.run(crash_at(best + 1), **PATIENT)
    with pytest.raises(CrashedError):
        bench.run(crash_at(last), **PATIENT)
    bench.work.parent.rename(tmp_path / "moved")  # the best weights are found wherever the run folder is
    bench.work = tmp_path / "moved" / bench.work.name
    assert bench.run(**PATIENT) == whole
    shutil.rmtree(bench.work.parent)
    shutil.copytree(finished, bench.work.parent)
    assert bench.run(**PATIENT) == whole, "patience was at its end: no further step"


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


FAULTS: dict[str, Callable[[Path], None]] = {
    "optimizer.pt is missing": lambda folder: (folder / "optimizer.pt").unlink(),
    "scheduler.pt is missing": lambda folder: (folder / "scheduler.pt").unlink(),
    "trainer_state.json is missing": lambda folder: (folder / "trainer_state.json").unlink(),
    "rng_state.pth is missing": lambda folder: (folder / "rng_state.pth").unlink(),
    "model.safetensors is damaged": lambda folder: damage(folder / "model.safetensors"),
    "optimizer.pt is damaged": lambda folder: damage(folder / "optimizer.pt"),
    "not finished": lambda folder: (folder / "manifest.json").unlink(),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_rows_3_and_4_a_checkpoint_that_is_not_whole_is_named_and_left_out(
    bench: Bench, uninterrupted: Uninterrupted, cut: Path, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = uninterrupted(num_train_epochs=2)
    shutil.copytree(cut, bench.work.parent)
    newest = checkpoints(bench.work)[0]
    FAULTS[reason](newest)
    assert bench.run(num_train_epochs=2) == whole
    assert f"{newest.name} is left out: {reason}" in caplog.text


def test_row_4_the_best_checkpoint_counts_too(
    bench: Bench, uninterrupted: Uninterrupted, caplog: pytest.LogCaptureFixture
) -> None:
    whole, finished = uninterrupted(**PATIENT)
    shutil.copytree(finished, bench.work.parent)
    best = bench.work / f"checkpoint-{whole[1]['best_step']}"
    assert best != checkpoints(bench.work)[0]
    damage(best / "model.safetensors")
    assert bench.run(**PATIENT) == whole
    assert f"its best checkpoint {best.name} is left out" in caplog.text


@pytest.mark.parametrize("limit", [1, 3])
def test_as_many_checkpoints_are_kept_as_asked_for_and_always_the_best(bench: Bench, limit: int) -> None:
    _, result = bench.run(num_train_epochs=4, save_total_limit=limit)
    kept = [path.name for path in checkpoints(bench.work)]
    needed = {"checkpoint-24", f"checkpoint-{result['best_step']}"}
    assert kept[0] == "checkpoint-24"
    assert needed <= set(kept)
    assert len(kept) == max(limit, len(needed))


def spoilt(at: int, spoil: Callable[[torch.Tensor], torch.Tensor]) -> Loss:
    calls = 0

    def loss(logits: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        nonlocal calls
        calls += logits.requires_grad
        found = hard_loss(logits, labels)
        return spoil(found) if calls == at and logits.requires_grad else found

    return loss


SPOILS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "NaN loss": (lambda loss: loss * float("nan"), "the loss is nan at step 9"),
    "infinite loss": (lambda loss: loss + float("inf"), "the loss is inf at step 9"),
    "NaN gradient": (lambda loss: loss + (loss * 0).sqrt(), "the gradient is nan at step 9"),
}


@pytest.mark.parametrize("kind", SPOILS)
def test_row_14_numbers_that_end_stop_the_training_at_once(bench: Bench, kind: str) -> None:
    spoil, message = SPOILS[kind]
    with pytest.raises(RunError) as error:
        bench.run(loss=spoilt(9, spoil))
    assert error.value.exit_code == 1
    assert error.value.message.startswith(message)
    assert "learning rate 0.00" in error.value.message
    rows = error.value.message.rpartition(": ")[2].split(", ")
    assert len({int(row) for row in rows}) == 16
    assert [path.name for path in checkpoints(bench.work)] == ["checkpoint-6"]
    assert fault(bench.work / "checkpoint-6") is None


def test_row_14_weights_that_are_lost_are_not_saved(bench: Bench) -> None:
    lost: list[nn.Module] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        return hard_loss(logits, labels)

    def report(label: str, done: int, total: int) -> None:
        if done == 12:
            with torch.no_grad():
                next(lost[0].parameters()).view(-1)[0] = float("inf")

    model = load_model(bench.encoder, TASK, 1)
    lost.append(model)
    course = Course("teach", bench.train, bench.validation, loss, TASK, 7)
    bench.work.mkdir(parents=True)
    with pytest.raises(RunError, match="at step 12 the model holds weights that are NaN or infinite") as error:
        train(model, bench.tokenizer, course, TrainingRecipe.model_validate(SETTINGS), bench.work, report)
    assert "embeddings" in error.value.problems[0]
    assert [path.name for path in checkpoints(bench.work)] == ["checkpoint-6"]


def test_row_6_room_is_looked_for_before_a_save(
    bench: Bench, uninterrupted: Uninterrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage

    def full(path: Any) -> Any:
        return real(path)._replace(free=1000 if (bench.work / "checkpoint-6").exists() else 10**12)

    monkeypatch.setattr(shutil, "disk_usage", full)
    with pytest.raises(RunError, match=r"No space left: needs \d+\.\d MB, 0\.0 MB free in .*\.work-teach") as error:
        bench.run()
    assert error.value.exit_code == 1
    assert [path.name for path in checkpoints(bench.work)] == ["checkpoint-6"]
    monkeypatch.undo()
    assert bench.run() == uninterrupted()[0]


def test_row_16_memory_that_runs_out_names_the_option(bench: Bench) -> None:
    def loss(logits: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    with pytest.raises(RunError, match="per_device_train_batch_size 16; halve it"):
        bench.run(loss=loss)


def test_other_errors_pass_as_they_are(bench: Bench) -> None:
    def loss(logits: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        bench.run(loss=loss)


def test_event_files_for_tensorboard_stay_in_the_run_folder(bench: Bench) -> None:
    with pytest.raises(CrashedError):
        bench.run(crash_at(8), report_to=["tensorboard"])
    bench.run(report_to=["tensorboard"])
    assert len(list((bench.work.parent / "logs" / "teach").glob("events.out.tfevents.*"))) == 2
    assert not list(bench.work.rglob("events.out.*"))


def test_the_order_of_rows_follows_from_seed_and_epoch() -> None:
    lengths = [5 + i % 7 for i in range(50)]
    order = ByLength(lengths, 4, seed=3)
    first = list(order)
    torch.rand(5)
    assert list(order) == first
    assert sorted(first) == list(range(50))
    order.epoch = 1
    assert list(order) != first
    assert list(ByLength(lengths, 4, seed=4)) == list(order)


def test_a_batch_is_padded_to_its_longest_row(bench: Bench) -> None:
    batch = collate(bench.tokenizer, bench.train[:3])
    longest = max(len(row["input_ids"]) for row in bench.train[:3])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, longest)
    assert batch["row"].tolist() == [0, 1, 2]
    assert batch["labels"].tolist() == [1, 0, 1]
