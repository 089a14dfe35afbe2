"""One training loop for teachers, students and recoveries: transformers' Trainer, made safe to kill and to resume."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    EvalPrediction,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
)

from distill import metrics
from distill.callbacks import Guard, Journal, Patience, StopSignals
from distill.data import Split
from distill.errors import InterruptedRunError, RunError
from distill.files import disk_error
from distill.progress import Report
from distill.recipe import TrainingRecipe
from distill.resume import newest_complete
from distill.task import Task

LOG = logging.getLogger("potstill")
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
Example = dict[str, Any]


@dataclass(frozen=True)
class Course:
    """What a model is trained on: `loss(logits, labels, teacher logits or None)` over rows, judged on validation."""

    stage: str
    train: Sequence[Example]
    validation: Sequence[Example]
    loss: Loss
    task: Task
    seed: int


def encode(
    tokenizer: PreTrainedTokenizerBase, split: Split, task: Task, signals: np.ndarray | None = None
) -> list[Example]:
    """Token ids, labels (-100 where there is none) and, if given, the teacher's logits, a dict a row."""
    pairs = list(split.pairs) if split.pairs is not None else None
    encoded = tokenizer(list(split.texts), pairs, truncation=True, max_length=task.max_length)
    labels = split.labels or [-100] * len(split.texts)
    rows = [{key: encoded[key][i] for key in encoded} | {"labels": labels[i], "row": i} for i in range(len(labels))]
    if signals is not None:
        rows = [row | {"teacher_logits": signals[i]} for i, row in enumerate(rows)]
    return rows


def collate(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]) -> dict[str, torch.Tensor]:
    """One batch, padded to its longest row."""
    extra = ("labels", "row", "teacher_logits")
    inputs = [{key: value for key, value in row.items() if key not in extra} for row in rows]
    columns = {key: torch.as_tensor(np.asarray([row[key] for row in rows])) for key in extra if key in rows[0]}
    return {**tokenizer.pad(inputs, return_tensors="pt"), **columns}


class _Trainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loss is ours, and which stops at the first loss that is not a number."""

    def __init__(self, loss: Loss, **options: Any) -> None:
        super().__init__(**options)
        self.loss = loss
        self.loss_is_scaled_for_ga = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The recipe's loss over one batch."""
        inputs = dict(inputs)
        labels, rows, teacher = inputs.pop("labels"), inputs.pop("row"), inputs.pop("teacher_logits", None)
        outputs = model(**inputs)
        loss = self.loss(outputs.logits, labels, teacher)
        if model.training and not math.isfinite(loss.item()):
            self._refuse(loss.item(), rows.tolist())
        return (loss, outputs) if return_outputs else loss

    def _refuse(self, loss: float, rows: list[int]) -> None:
        """Stop: from here on every weight would be lost."""
        raise RunError(
            f"the loss is {loss} at step {self.state.global_step + 1}, learning rate {self._get_learning_rate():.3g}; "
            f"lower learning_rate, or look at these training rows: {', '.join(map(str, rows))}"
        )


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
    arguments = _arguments(recipe, course, work)
    trainer = _Trainer(
        course.loss,
        model=model,
        args=arguments,
        train_dataset=list(course.train),
        eval_dataset=list(course.validation),
        data_collator=partial(collate, tokenizer),
        processing_class=tokenizer,
        compute_metrics=_judge(course.task),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    with StopSignals() as stop:
        for callback in (
            Guard(stop, trainer),
            Patience(recipe.early_stopping_patience),
            Journal(course.stage, work, report),
        ):
            trainer.add_callback(callback)
        _run(trainer, work, recipe)
        if stop.requested:
            raise InterruptedRunError(f"stopped while in {course.stage}; run the same command again to go on")
    return _summary(trainer)


def _run(trainer: Trainer, work: Path, recipe: TrainingRecipe) -> None:
    """Train from the newest whole checkpoint, and say clearly what goes wrong."""
    start = newest_complete(work)
    if start is not None:
        LOG.info("going on from %s", start)
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _explained(error, work, recipe) from error


def _explained(error: Exception, work: Path, recipe: TrainingRecipe) -> Exception:
    """A full disk or memory in one clear line; anything else as it is."""
    text = str(error).lower()
    if "no space left" in text or "inline_container" in text or getattr(error, "errno", None) == 28:
        return disk_error(OSError(28, "No space left on device"), work)
    if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in text or "can't allocate memory" in text:
        batch = recipe.per_device_train_batch_size
        return RunError(
            f"out of memory with per_device_train_batch_size {batch}; halve it and double gradient_accumulation_steps, "
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


def has_bf16() -> bool:
    """Whether bfloat16 makes training faster here.

    On processors only with AMX: with AVX512-BF16 alone a training step took 1.4 to 1.9 times as long as in fp32.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _arguments(recipe: TrainingRecipe, course: Course, work: Path) -> TrainingArguments:
    """The recipe as TrainingArguments."""
    own = {"bf16", "early_stopping_patience", "label_smoothing_factor", "report_to"}
    options = {key: value for key, value in recipe.model_dump().items() if key not in own and value is not False}
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
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=gpu,
        ddp_find_unused_parameters=False,
        report_to=list(recipe.report_to) or "none",
        run_name=course.stage,
        disable_tqdm=True,
    )


def _summary(trainer: Trainer) -> dict[str, Any]:
    """What a step's manifest keeps of its training."""
    last = [entry for entry in trainer.state.log_history if "train_runtime" in entry]
    return {
        "steps": trainer.state.global_step,
        "examples_per_second": last[-1]["train_samples_per_second"] if last else None,
        "best": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step,
        "threads": torch.get_num_threads(),
        "bf16": trainer.args.bf16,
    }
