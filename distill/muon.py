"""Muon (Jordan et al. 2024): matrices of hidden layers move by their momentum made orthogonal, all else by AdamW.

Its steps are longer than AdamW's by the time of a few small matrix products, and a training from random weights needs
fewer of them. Several processes share these products.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers import TrainingArguments

MUON = "muon"
"""What recipes call it; any other optimiser is one of Trainer's."""


def muon(model: nn.Module, args: TrainingArguments) -> torch.optim.Optimizer:
    """The optimiser of `model`'s weights with the learning rate, decay and betas of `args`.

    A matrix's update is scaled to the size of AdamW's, 0.2 * sqrt(larger side) (Liu et al. 2025, section 2.2), so that
    one learning rate serves both. Embeddings and matrices decay, biases and norms do not.
    """
    from distill.shared_muon import SharedMuon  # its library takes seconds, and few trainings ask for it

    hidden = hidden_matrices(model)
    known = {id(weight) for weight in hidden}
    rest = [weight for weight in model.parameters() if id(weight) not in known and weight.requires_grad]
    shared = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
    adamw = {**shared, "use_muon": False, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    groups = [
        {**shared, "use_muon": True, "params": hidden},
        {**adamw, "params": [weight for weight in rest if weight.ndim > 1]},
        {**adamw, "params": [weight for weight in rest if weight.ndim < 2], "weight_decay": 0.0},
    ]
    found: torch.optim.Optimizer = SharedMuon([group for group in groups if group["params"]], use_adjusted_lr=True)
    return found


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of linear products inside of repeated layers: no embedding, no output matrix, no head."""
    layers = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    linear = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
    weights = [cast(nn.Parameter, module.weight) for module in linear]
    return list({id(weight): weight for weight in weights if weight.requires_grad}.values())
