"""transformers' Trainer with our loss and our order of rows, which stops where numbers end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from distill.average import Average
from distill.batches import ByLength
from distill.errors import RunError
from distill.muon import muon
from distill.token_batches import ByTokens, lengths

Loss = Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]
"""`loss(logits, labels, what the teacher says or None)` of one batch."""
Judge = Callable[[nn.Module], Mapping[str, float]]
"""A model's metrics on the validation split."""


class Loop(Trainer):  # type: ignore[misc]
    """A Trainer that refuses a loss or a gradient that is not finite."""

    def __init__(self, loss: Loss, average: Average | None = None, with_muon: bool = False, **options: Any) -> None:
        """Minimise `loss`; what is judged and kept are the weights, or their `average`. Other options are Trainer's."""
        super().__init__(**options)
        self.loss = loss
        self.with_muon = with_muon
        self.average = average
        if average is not None:
            self.add_callback(average)
        self.loss_is_scaled_for_ga = False
        self.order: ByLength | ByTokens | None = None
        self.rows: list[int] = []

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's optimiser, or Muon."""
        if self.with_muon:
            self.optimizer: torch.optim.Optimizer | None = self.optimizer or muon(self.model, self.args)
        found: torch.optim.Optimizer = super().create_optimizer(model)
        return found

    def _get_train_sampler(self, train_dataset: Any = None) -> ByLength:
        """An order that a resumed training enters again."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        self.order = ByLength([len(row["input_ids"]) for row in rows], size, self.args.data_seed)
        return self.order

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The recipe's loss over one batch."""
        inputs = dict(inputs)
        labels, rows, teacher = inputs.pop("labels"), inputs.pop("row"), inputs.pop("teacher_logits", None)
        outputs = model(**inputs)
        loss = self.loss(outputs.logits, labels, teacher)
        if model.training:
            self.rows = rows.tolist()
            self.expect_finite("loss", loss.item())
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        """The metrics of the weights that would be kept."""
        with self._kept():
            found: dict[str, float] = super().evaluate(*given, **named)
        return found

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """A checkpoint's model is what was judged; where that is an average, the weights themselves lie beside it."""
        with self._kept():
            super()._save_checkpoint(model, trial)
        if self.average is not None and self.args.should_save:
            folder = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self.average.save_raw(Path(str(self.args.output_dir)) / folder)

    def _kept(self) -> AbstractContextManager[None]:
        """While entered, the model has the weights that are kept."""
        return nullcontext() if self.average is None else self.average.in_place()

    def expect_finite(self, what: str, value: float) -> None:
        """Go on only with numbers: after anything else every weight would be lost.

        Raises:
            RunError: naming the step, the learning rate and the rows of the last batch.
        """
        if math.isfinite(value):
            return
        raise RunError(
            f"the {what} is {value} at step {self.state.global_step + 1}, "
            f"learning rate {self._get_learning_rate():.3g}; lower learning_rate and begin again with --force, "
            f"or look at these training rows (counted from 0): {', '.join(map(str, self.rows))}"
        )


class TokenLoop(Loop):
    """A Loop over pairs of sentences: batches by tokens, validation by translating."""

    def __init__(self, loss: Loss, average: Average | None, judge: Judge, budget: int, **options: Any) -> None:
        """Batches of `budget` tokens; `judge` says how good the model, or its `average`, is."""
        super().__init__(loss, average, **options)
        self.judge = judge
        self.budget = budget

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of a resumed training are those of the first time."""
        self.order = ByTokens(lengths(self.train_dataset), self.budget, self.args.data_seed)
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_sampler=self.order,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """What the judge says of the weights that would be kept."""
        with self._kept():
            found = self.judge(self.accelerator.unwrap_model(self.model))
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
