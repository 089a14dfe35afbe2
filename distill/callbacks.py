"""What watches a training: whole checkpoints, signals to stop, patience, and the journal."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from distill import files, processes
from distill.checkpoint import check_finite
from distill.errors import CheckpointError, RunError
from distill.loop import Loop
from distill.progress import Report
from distill.resume import checkpoint, rotate, seal

ROOM = 1.2


class StopSignals:
    """While entered: the first SIGTERM or Ctrl-C asks for a stop, the second ends the process at once."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        """Listen, if this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no longer."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(130)
        self.requested = True


class Guard(TrainerCallback):  # type: ignore[misc]
    """Stops when asked, and lets only checkpoints count that are finite and whole."""

    def __init__(self, stop: StopSignals, loop: Loop, keep: int) -> None:
        """Watch `loop`; `keep` checkpoints stay on the disk."""
        self.stop = stop
        self.loop = loop
        self.keep = keep
        self._stopping = False

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Each epoch has its own order of rows."""
        assert self.loop.order is not None
        self.loop.order.epoch = int(state.epoch or 0)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Refuse a gradient that is not finite; with float16 the scaler skips such steps itself."""
        if args.fp16:
            return
        sums = [p.grad.sum() for p in self.loop.model.parameters() if p.grad is not None]
        self.loop.expect_finite("gradient", float(sum(value.item() for value in sums)))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop when asked to, in every process at the same step.

        At a step after which an epoch or the training ends, the save is left to that end: it comes after an evaluation,
        which the training that goes on from here would otherwise miss.
        """
        self._stopping = processes.anyone(self.stop.requested)
        if self._stopping:
            by_epoch = args.eval_strategy == IntervalStrategy.EPOCH
            control.should_save = control.should_save or not (by_epoch and _at_an_end(state))
            control.should_training_stop = True
        self._before_save(args, state, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An epoch that was stopped in its middle is not evaluated: without the stop it would not have been."""
        if self._stopping and not _at_an_end(state):
            control.should_evaluate = control.should_save = control.should_log = False
        self._before_save(args, state, control)

    def _before_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Look for room and for weights that are lost before anything is written."""
        if not (control.should_save and state.is_world_process_zero):
            return
        model = self.loop.accelerator.unwrap_model(self.loop.model)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        files.look_for_room(Path(str(args.output_dir)), int(3 * weights * ROOM))  # the weights, AdamW's two moments
        try:
            check_finite(model)
        except CheckpointError as error:
            message = f"at step {state.global_step} {error.message}; lower learning_rate and begin again with --force"
            raise RunError(message, error.problems) from error

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Seal the checkpoint once every process has written its part; then older ones may go."""
        processes.wait()
        if state.is_world_process_zero:
            work = Path(str(args.output_dir))
            seal(checkpoint(work, state.global_step))
            rotate(work, self.keep, state.best_global_step)


def _at_an_end(state: TrainerState) -> bool:
    """Whether the step just done is the last of an epoch or of the training."""
    return float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps


class Patience(TrainerCallback):  # type: ignore[misc]
    """Early stopping that reads the log alone, so that a resumed run stops where an uninterrupted one does."""

    def __init__(self, patience: int) -> None:
        """Stop after `patience` evaluations without gain; 0: never."""
        self.patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count the evaluations since the best one."""
        if self.is_over(args, state):
            control.should_training_stop = True

    def is_over(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether patience is at its end."""
        metric = args.metric_for_best_model
        found = [entry[metric] for entry in state.log_history if metric in entry]
        return bool(self.patience and found and len(found) - 1 - found.index(max(found)) >= self.patience)


class Journal(TrainerCallback):  # type: ignore[misc]
    """Appends each log entry to `metrics.jsonl` in the run folder and moves the progress bar."""

    def __init__(self, stage: str, work: Path, report: Report) -> None:
        """Write beside the `work` folder."""
        self.stage = stage
        self.path = work.parent / "metrics.jsonl"
        self.report = report

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take this stage back to the checkpoint it goes on from, so that no step stands there twice."""
        if state.is_world_process_zero:
            others = [line for line in self._lines() if line["stage"] != self.stage]
            own = [{"stage": self.stage, "step": entry["step"], **entry} for entry in state.log_history]
            files.write_text(self.path, "".join(json.dumps(line) + "\n" for line in [*others, *own]))

    def _lines(self) -> list[dict[str, Any]]:
        """What stands there, without a line that was torn."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        values = [_parsed(line) for line in lines]
        return [value for value in values if isinstance(value, dict) and "stage" in value]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        if state.is_world_process_zero:
            self.report(self.stage, state.global_step, state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """One line of JSON."""
        if state.is_world_process_zero and logs:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": self.stage, "step": state.global_step, **logs}) + "\n")


def _parsed(line: bytes) -> Any:
    """A line of JSON; None for one that was torn."""
    try:
        return json.loads(line)
    except ValueError:
        return None
