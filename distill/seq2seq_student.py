"""Building students of encoder-decoders: layers copied from the teacher, a smaller checkpoint, or a config."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from distill.layer_sizes import choose_sizes
from distill.layers import model_config
from distill.low_rank import resize, whole
from distill.models import chosen_layers
from distill.recipe import StudentRecipe
from distill.seq2seq import build_seq2seq, load_seq2seq
from distill.task import Task


def build_seq2seq_student(
    recipe: StudentRecipe,
    teacher: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    start: Path | None,
    seed: int,
) -> nn.Module:
    """The student before its first step; `tokenizer` is its own, `start` the folder or file that the recipe names.

    Raises:
        RecipeError: the shape cannot be made from this teacher, or the config does not fit the task.
        CheckpointError: `start` cannot be used.
    """
    if recipe.model is not None and start is not None:
        return load_seq2seq(start)
    if isinstance(recipe.config, Mapping):
        return build_seq2seq(recipe.config, tokenizer, task, seed)
    if recipe.config is not None and start is not None:
        return build_seq2seq(start, tokenizer, task, seed)
    return copied_seq2seq(teacher, recipe.encoder_layers, recipe.decoder_layers)


Layers = int | Sequence[int] | None
"""How many layers, or which ones."""


def copied_seq2seq(teacher: nn.Module, encoder_layers: Layers, decoder_layers: Layers) -> nn.Module:
    """A student made of evenly spaced layers of the teacher, or of those that are named, and all the rest.

    Left out: all encoder layers, and half of the decoder's, which take most of the time (Kasai et al. 2021). A single
    decoder layer is the teacher's last, after which the output matrix expects what it gets. What the teacher shares,
    embeddings and output matrix, the student shares.

    Raises:
        RecipeError: layers that the teacher does not have.
    """
    teacher = whole(teacher)
    config = copy.deepcopy(model_config(teacher))
    keys = ("num_layers", "num_decoder_layers") if hasattr(config, "num_decoder_layers") else _BART
    totals = [int(getattr(config, key)) for key in keys]
    encoder = chosen_layers(encoder_layers or totals[0], totals[0], "encoder_layers")
    decoder = chosen_layers(decoder_layers, totals[1], "decoder_layers")
    if len(decoder) == 1 and not isinstance(decoder_layers, Sequence):
        decoder = [totals[1] - 1]
    kept = [encoder, decoder]
    for key, layers in zip(keys, kept, strict=True):
        setattr(config, key, len(layers))
    if hasattr(config, "num_hidden_layers") and "num_hidden_layers" not in type(config).attribute_map:
        config.num_hidden_layers = len(encoder)
    choose_sizes(config, [*encoder, *(totals[0] + layer for layer in decoder)])
    student = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)
    resize(student)
    weights = teacher.state_dict()
    student.load_state_dict({key: weights[_source(key, kept, weights)] for key in student.state_dict()})
    student.tie_weights()
    student.generation_config = copy.deepcopy(cast(Any, teacher).generation_config)
    return cast(nn.Module, student.eval())


_BART = ("encoder_layers", "decoder_layers")


def _source(key: str, kept: list[list[int]], weights: Container[str]) -> str:
    """The teacher's name for a student's weight: `model.decoder.layers.1.fc1.weight`, `decoder.block.1.layer.…`.

    T5's first layers hold the biases of all: what the chosen layer does not have is that of the layer itself.
    """
    parts = key.split(".")
    for side, layers in zip(("encoder", "decoder"), kept, strict=True):
        for place in range(len(parts) - 2):
            if parts[place] == side and parts[place + 1] in ("layers", "block"):
                parts[place + 2] = str(layers[int(parts[place + 2])])
                found = ".".join(parts)
                return found if found in weights else key
    return key
