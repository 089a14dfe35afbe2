"""Building students of encoder-decoders: layers copied from the teacher, a smaller checkpoint, or a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from distill.errors import RecipeError
from distill.layers import model_config
from distill.models import evenly_spaced
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


def copied_seq2seq(teacher: nn.Module, encoder_layers: int | None, decoder_layers: int | None) -> nn.Module:
    """A student made of evenly spaced layers of the teacher, the first and the last among them, and all the rest.

    Left out: all encoder layers, and half of the decoder's, which take most of the time (Kasai et al. 2021). What the
    teacher shares, embeddings and output matrix, the student shares.

    Raises:
        RecipeError: more layers than the teacher has.
    """
    config = copy.deepcopy(model_config(teacher))
    keys = ("num_layers", "num_decoder_layers") if hasattr(config, "num_decoder_layers") else _BART
    totals = [int(getattr(config, key)) for key in keys]
    counts = [encoder_layers or totals[0], decoder_layers or max(1, totals[1] // 2)]
    for name, count, total in zip(("encoder_layers", "decoder_layers"), counts, totals, strict=True):
        if count > total:
            raise RecipeError(f"student.{name}: {count} layers cannot be copied from a teacher of {total}")
    for key, count in zip(keys, counts, strict=True):
        setattr(config, key, count)
    if hasattr(config, "num_hidden_layers") and "num_hidden_layers" not in type(config).attribute_map:
        config.num_hidden_layers = counts[0]
    student = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)
    kept = [evenly_spaced(total, count) for total, count in zip(totals, counts, strict=True)]
    weights = teacher.state_dict()
    student.load_state_dict({key: weights[_source(key, kept)] for key in student.state_dict()})
    student.tie_weights()
    student.generation_config = copy.deepcopy(cast(Any, teacher).generation_config)
    return cast(nn.Module, student.eval())


_BART = ("encoder_layers", "decoder_layers")


def _source(key: str, kept: list[list[int]]) -> str:
    """The teacher's name for a student's weight: `model.decoder.layers.1.fc1.weight`, `decoder.block.1.layer.…`."""
    parts = key.split(".")
    for side, layers in zip(("encoder", "decoder"), kept, strict=True):
        for place in range(len(parts) - 2):
            if parts[place] == side and parts[place + 1] in ("layers", "block"):
                parts[place + 2] = str(layers[int(parts[place + 2])])
                return ".".join(parts)
    return key
