"""Tiny classifiers of each supported architecture, with random weights large enough to matter."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

KINDS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
LABELS = ("bad", "fair", "good")
VOCABULARY = 50


def tiny_config(kind: str, layers: int = 4, labels: tuple[str, ...] = LABELS) -> PreTrainedConfig:
    """Width 16, 4 heads of 4, 24 feed-forward neurons."""
    names: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
    }
    names |= {"vocab_size": VOCABULARY, "initializer_range": 0.4}
    if kind == "distilbert":
        return DistilBertConfig(dim=16, n_heads=4, n_layers=layers, hidden_dim=24, max_position_embeddings=40, **names)
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": layers, "intermediate_size": 24}
    classes = {
        "bert": BertConfig,
        "roberta": RobertaConfig,
        "xlm-roberta": XLMRobertaConfig,
        "electra": ElectraConfig,
    }
    if kind == "electra":
        sizes["embedding_size"] = 8
    return classes[kind](max_position_embeddings=40, **sizes, **names)


def tiny_model(kind: str, layers: int = 4, labels: tuple[str, ...] = LABELS, seed: int = 0) -> nn.Module:
    """A classifier in evaluation mode; biases are random too, so that dropping one is seen."""
    torch.manual_seed(seed)
    model = cast(nn.Module, AutoModelForSequenceClassification.from_config(tiny_config(kind, layers, labels)))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_(std=0.3)
    return model.eval()


def tiny_batch(rows: int = 3, length: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """Token ids and a mask with padding at the end of all rows but the first."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, length - row :] = 0
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}


def answer(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits `(rows, labels)`."""
    with torch.no_grad():
        return cast(torch.Tensor, model(**batch).logits)
