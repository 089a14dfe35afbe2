"""transformers' Trainer with our loss and our order of rows, which stops where numbers end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from distill.batches import ByLength
from distill.errors import RunError

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""`loss(logits, labels, teacher logits or None)` of one batch."""


class Loop(Trainer):  # type: ignore[misc]
    """A Trainer that refuses a loss or a gradient that is not finite."""

    def __init__(self, loss: Loss, **options: Any) -> None:
        """Minimise `loss`; the options are Trainer's."""
        super().__init__(**options)
        self.loss = loss
        self.loss_is_scaled_for_ga = False
        self.order: ByLength | None = None
        self.rows: list[int] = []

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
