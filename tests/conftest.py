"""Fixtures for all tests: one thread, and a tiny real model built from a config."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# a busy machine is not a failure, and the same commit gives the same answer
settings.register_profile("potstill", deadline=None, derandomize=True)
settings.load_profile("potstill")
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", WANDB_MODE="disabled")

TORCH_FREE = importlib.util.find_spec("torch") is None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without torch only the files marked `runtime` can be imported, so only they are collected."""
    if TORCH_FREE and collection_path.name.startswith("test_"):
        return "pytest.mark.runtime" not in collection_path.read_text(encoding="utf-8") or None
    return None


POSITIVE = ["good", "great", "lovely", "warm", "funny", "bright", "gorgeous", "moving"]
NEGATIVE = ["bad", "dull", "cold", "boring", "stale", "empty", "awful", "clumsy"]
FILLER = ["the", "film", "is", "a", "story", "of", "one", "town", "and", "its", "people", "with", "some", "music"]


def toy_rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences whose label follows from one word: (text, label), learnable in a few steps."""
    import random

    choose = random.Random(seed)
    rows = []
    for i in range(count):
        words, label = ((POSITIVE, "positive"), (NEGATIVE, "negative"))[i % 2]
        text = [*choose.sample(FILLER, choose.randint(2, 9)), choose.choice(words), *choose.sample(FILLER, 2)]
        rows.append((" ".join(text), label))
    return rows


def write_toy_csv(path: Path, count: int, seed: int = 0) -> Path:
    """A CSV of toy rows with columns text and label."""
    lines = [f"{text},{label}" for text, label in toy_rows(count, seed)]
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return path


def toy_tokenizer() -> Any:
    """A WordPiece tokenizer of the toy words and single letters; not trained, for training numbers ties at random."""
    import string

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    words = sorted({*POSITIVE, *NEGATIVE, *FILLER} - set(letters))
    vocabulary = {piece: number for number, piece in enumerate([*special, *letters, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def write_tiny_encoder(folder: Path, layers: int = 4) -> Path:
    """A tiny random BERT encoder with its tokenizer, as a hub would hand it over (no task)."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = toy_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained-like encoder folder without a task."""
    return write_tiny_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier (2 layers, width 32, 4 heads) as potstill writes it, random weights."""
    from distill.checkpoint import load_model, load_tokenizer, save
    from distill.task import Task

    source = write_tiny_encoder(tmp_path_factory.mktemp("models") / "source", layers=2)
    folder = source.parent / "checkpoint"
    task = Task("classification", ("negative", "positive"), max_length=32)
    save(load_model(source, task), load_tokenizer(source), task, folder)
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Any:
    """A recipe of a few steps with its data and encoder; not to be changed, only copied."""
    from command_runs import write_project

    return write_project(tmp_path_factory.mktemp("project") / "toy", tiny_encoder)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, project: Any) -> Path:
    """What teach, label and student make of it without incident; not to be changed, only copied."""
    from command_runs import command

    folder = tmp_path_factory.mktemp("finished") / "run"
    for step in ("teach", "label", "student"):
        ended = command("distill", step, project.recipe, "-o", folder, watched=folder)
        assert ended.code == 0, ended.err
    return folder
