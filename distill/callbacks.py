"""What watches a training: whole checkpoints, signals to stop, patience, and the journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill.checkpoint import check_finite
from distill.errors import RunError
from distill.progress import Report
from distill.resume import seal

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
    """Saves before a stop, looks for room before a save, and seals each checkpoint after it."""

    def __init__(self, stop: StopSignals, trainer: Trainer) -> None:
        """Watch `trainer`."""
        self.stop = stop
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop when asked to; complain about a disk without room before anything is half written."""
        if self.stop.requested:
            control.should_save = True
            control.should_training_stop = True
        if control.should_save and state.is_world_process_zero:
            self._look_for_room(Path(str(args.output_dir)))

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The same before the save at an epoch's end."""
        if control.should_save and state.is_world_process_zero:
            self._look_for_room(Path(str(args.output_dir)))

    def _look_for_room(self, work: Path) -> None:
        weights = sum(p.numel() * p.element_size() for p in self.trainer.model.parameters())
        needs = int(3 * weights * ROOM)  # the weights and AdamW's two moments
        free = shutil.disk_usage(work).free
        if free < needs:
            raise RunError(
                f"No space left for a checkpoint: needs {needs / 1e6:.1f} MB, {free / 1e6:.1f} MB free in {work}; "
                "make room and run the same command again"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Seal the checkpoint once every process has written its part."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            check_finite(self.trainer.accelerator.unwrap_model(self.trainer.model))
            seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


class Patience(TrainerCallback):  # type: ignore[misc]
    """Early stopping that reads the log alone, so that a resumed run stops where an uninterrupted one does."""

    def __init__(self, patience: int) -> None:
        """Stop after `patience` evaluations without gain; 0: never."""
        self.patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count the evaluations since the best one."""
        found = [
            entry[args.metric_for_best_model] for entry in state.log_history if args.metric_for_best_model in entry
        ]
        since = len(found) - 1 - found.index(max(found)) if found else 0
        if self.patience and since >= self.patience:
            control.should_training_stop = True


class Journal(TrainerCallback):  # type: ignore[misc]
    """Appends each log entry to `metrics.jsonl` in the run folder and moves the progress bar."""

    def __init__(self, stage: str, work: Path, report: Report) -> None:
        """Write beside the `work` folder."""
        self.stage = stage
        self.path = work.parent / "metrics.jsonl"
        self.report = report

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
