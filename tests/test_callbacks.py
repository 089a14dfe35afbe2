"""The watchers one by one: signals, patience, the journal. test_training.py has them at work."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from distill.callbacks import Journal, Patience, StopSignals
from distill.progress import silent


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> TrainingArguments:
    folder = str(tmp_path_factory.mktemp("arguments"))
    return TrainingArguments(folder, metric_for_best_model="eval_accuracy", use_cpu=True, report_to="none")


def state(*accuracies: float) -> TrainerState:
    log = [line for value in accuracies for line in ({"loss": 1.0, "step": 1}, {"eval_accuracy": value, "step": 1})]
    return TrainerState(log_history=log)


PATIENCE = [
    # patience, accuracies -> whether it is over
    (0, [0.9, 0.1, 0.1, 0.1], False),
    (1, [], False),
    (1, [0.5], False),
    (1, [0.5, 0.6], False),
    (1, [0.5, 0.5], True),
    (2, [0.5, 0.5], False),
    (2, [0.5, 0.4, 0.5], True),
    (2, [0.5, 0.4, 0.51], False),
    (2, [0.5, 0.9, 0.8, 0.7], True),
    (3, [0.5, 0.9, 0.8, 0.7], False),
]


@pytest.mark.parametrize(("patience", "accuracies", "over"), PATIENCE)
def test_patience_counts_evaluations_since_the_first_best(
    arguments: TrainingArguments, patience: int, accuracies: list[float], over: bool
) -> None:
    control = TrainerControl()
    Patience(patience).on_evaluate(arguments, state(*accuracies), control)
    assert control.should_training_stop is over


def test_the_first_signal_asks_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_row_13_the_second_signal_ends_the_process_at_once() -> None:
    child = os.fork()
    if child == 0:
        try:
            with StopSignals():
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_the_journal_takes_its_stage_back_to_the_checkpoint(arguments: TrainingArguments, tmp_path: Path) -> None:
    lines = [{"stage": stage, "step": step, "loss": 1.0} for stage in ("teach", "student") for step in (2, 4, 6)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"stage": "stu')
    journal = Journal("student", tmp_path / ".work-student", silent)
    resumed = TrainerState(log_history=[{"loss": 1.0, "step": 2}], global_step=3)
    journal.on_train_begin(arguments, resumed, TrainerControl())
    journal.on_log(arguments, resumed, TrainerControl(), {"loss": 0.5})
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == [*lines[:4], {"stage": "student", "step": 3, "loss": 0.5}]


def test_only_the_first_process_writes_the_journal(arguments: TrainingArguments, tmp_path: Path) -> None:
    journal = Journal("teach", tmp_path / ".work-teach", silent)
    other = TrainerState(log_history=[], is_world_process_zero=False)
    journal.on_train_begin(arguments, other, TrainerControl())
    journal.on_log(arguments, other, TrainerControl(), {"loss": 0.5})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_outside_the_main_thread_nobody_listens() -> None:
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with StopSignals() as stop:
                assert not stop.requested
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not failed
