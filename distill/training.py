"""One training loop for teachers, students and recoveries: transformers' Trainer, made safe to kill and to resume."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights
from torch import nn
from transformers import (
    EvalPrediction,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback

from distill import files, metrics, processes
from distill.average import Average
from distill.batches import Example, collate
from distill.callbacks import Guard, Journal, Patience, StopSignals
from distill.errors import InterruptedRunError, RunError
from distill.heap import keep_freed_memory
from distill.loop import Judge, Loop, Loss, TokenLoop
from distill.muon import MUON
from distill.number_types import fast_attention, has_bf16
from distill.progress import Report
from distill.recipe import TrainingRecipe
from distill.resume import STATE, checkpoint, newest_complete
from distill.sections import settings
from distill.task import Task
from distill.words import collate_words

LOG = logging.getLogger("potstill")
OWN = (
    *("bf16", "early_stopping_patience", "ema_decay", "label_smoothing_factor", "report_to", "save_total_limit"),
    "tokens_per_batch",
)
"""Options that Trainer does not get as they are."""


@dataclass(frozen=True)
class Course:
    """What a model is trained on: `loss(logits, labels, what the teacher says or None)` over rows.

    Validation rows are what classifiers are judged by; what translates is judged by `judge`. `watchers`
    follow the training step by step.
    """

    stage: str
    train: Sequence[Example]
    validation: Sequence[Example]
    loss: Loss
    task: Task
    seed: int
    judge: Judge | None = None
    watchers: Sequence[TrainerCallback] = ()


def train(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    course: Course,
    recipe: TrainingRecipe,
    work: Path,
    report: Report,
) -> Mapping[str, Any]:
    """Train `model` in place and leave its best weights in it; go on from what `work` holds.

    Returns what happened: steps, examples per second of this process, the best validation metric.

    Raises:
        InterruptedRunError: asked to stop; a checkpoint was saved first.
        RunError: the loss is not finite, or the disk or the memory is full.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
    start = processes.from_first(lambda: newest_complete(work))
    loop = _loop(model, tokenizer, course, recipe, work, start)
    loop.remove_callback(PrinterCallback)
    loop.remove_callback(ProgressCallback)
    patience = Patience(recipe.early_stopping_patience)
    with StopSignals() as stop:
        watchers = [Guard(stop, loop, recipe.save_total_limit), patience, Journal(course.stage, work, report)]
        for callback in [*course.watchers, *watchers, *_tensorboard(recipe, course.stage, work, start)]:
            loop.add_callback(callback)
        with fast_attention(model, bf16=loop.args.bf16 and course.judge is not None):
            _run(loop, start, patience, recipe, course.task)
        if processes.anyone(stop.requested):
            raise InterruptedRunError(f"stopped while in {course.stage}; run the same command again to go on")
    return _summary(loop)


def _loop(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    course: Course,
    recipe: TrainingRecipe,
    work: Path,
    start: Path | None,
) -> Loop:
    """The loop of the course's kind of task."""
    options: dict[str, Any] = {
        "with_muon": recipe.optim == MUON,
        "model": model,
        "args": _arguments(recipe, course, work),
        "train_dataset": list(course.train),
        "eval_dataset": list(course.validation),
        "processing_class": tokenizer,
    }
    average = Average(model, recipe.ema_decay, start) if recipe.ema_decay else None
    if course.judge is None:
        judge = _judge(course.task)
        return Loop(course.loss, average, data_collator=partial(collate, tokenizer), compute_metrics=judge, **options)
    collator = partial(collate_words, tokenizer.pad_token_id, model)
    return TokenLoop(course.loss, average, course.judge, recipe.tokens_per_batch, data_collator=collator, **options)


def _tensorboard(recipe: TrainingRecipe, stage: str, work: Path, start: Path | None) -> list[TrainerCallback]:
    """TensorBoard's event files go to `logs/` in the run folder; what follows step `start` there is superseded."""
    if "tensorboard" not in recipe.report_to or not processes.is_first():
        return []
    from torch.utils.tensorboard import SummaryWriter  # slow, and seldom asked for

    step = int(start.name.rpartition("-")[2]) + 1 if start else 0
    return [TensorBoardCallback(SummaryWriter(str(work.parent / "logs" / stage), purge_step=step))]


def _run(loop: Loop, start: Path | None, patience: Patience, recipe: TrainingRecipe, task: Task) -> None:
    """Train from a checkpoint or from the beginning, and say clearly what goes wrong."""
    if start is not None:
        LOG.info("going on from %s", start)
        state = TrainerState.load_from_json(str(start / STATE))
        if state.global_step >= state.max_steps or patience.is_over(loop.args, state):
            # Trainer would take one more step.
            _finish(loop, start, state)
            return
    try:
        loop.train(resume_from_checkpoint=str(start) if start else None)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _explained(error, Path(str(loop.args.output_dir)), recipe, task) from error


def _finish(loop: Loop, last: Path, state: TrainerState) -> None:
    """End a training that was cut off after its last step: take the best weights.

    Not in the file: weights that share another's memory, and positions that are computed.
    """
    best = checkpoint(last.parent, state.best_global_step)
    _, strange = load_weights(loop.model, best / "model.safetensors", strict=False)
    assert not strange, f"{best} holds other weights: {strange}"
    loop.state = state


def _explained(error: Exception, work: Path, recipe: TrainingRecipe, task: Task) -> Exception:
    """A full disk or memory in one clear line; anything else as it is."""
    if files.is_full(error):
        return files.disk_error(error, work)
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in text or "can't allocate memory" in text:
        option = "tokens_per_batch" if task.kind == "translation" else "per_device_train_batch_size"
        return RunError(
            f"out of memory with {option} {getattr(recipe, option)}; halve it and double gradient_accumulation_steps, "
            "or set gradient_checkpointing: true"
        )
    return error


def _judge(task: Task) -> Callable[[EvalPrediction], dict[str, float]]:
    """The task's metric on validation."""

    def judge(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions
        found = np.asarray(logits[0] if isinstance(logits, tuple) else logits).argmax(-1)
        return {task.metric: metrics.compute(task.metric, np.asarray(prediction.label_ids), found, task.num_labels)}

    return judge


def _arguments(recipe: TrainingRecipe, course: Course, work: Path) -> TrainingArguments:
    """The recipe as TrainingArguments."""
    given = settings(recipe, course.task.kind)
    options = {key: value for key, value in given.items() if key not in OWN and value is not False}
    if recipe.optim == MUON:
        del options["optim"]
    gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(work),
        **options,
        bf16=has_bf16() and not recipe.fp16 if recipe.bf16 == "auto" else recipe.bf16,
        use_cpu=not gpu,
        seed=course.seed,
        data_seed=course.seed,
        save_strategy=recipe.eval_strategy,
        save_steps=recipe.eval_steps or 500,
        logging_nan_inf_filter=False,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{course.task.metric}",
        greater_is_better=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=gpu,
        ddp_find_unused_parameters=False,
        report_to=[name for name in recipe.report_to if name != "tensorboard"] or "none",
        run_name=course.stage,
        disable_tqdm=True,
        log_level_replica="error",
    )


def _summary(loop: Loop) -> dict[str, Any]:
    """What a step's manifest keeps of its training."""
    last = [entry for entry in loop.state.log_history if "train_runtime" in entry]
    return {
        "steps": loop.state.global_step,
        "examples_per_second": last[-1]["train_samples_per_second"] if last else None,
        "best": loop.state.best_metric,
        "best_step": loop.state.best_global_step,
        "threads": torch.get_num_threads(),
        "bf16": loop.args.bf16,
    }
