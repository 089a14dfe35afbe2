"""Encoder-decoders on disk and from a config: loading, building, languages, and what a decoder starts from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedTokenizerBase

from distill.channels import CHANNELS_KEY
from distill.checkpoint import computed, from_pretrained, load_strictly, open_checkpoint
from distill.config_file import config_from, first_line, read_config
from distill.errors import CheckpointError, RecipeError
from distill.layer_sizes import SIZES_KEY
from distill.layers import model_config
from distill.low_rank import RANKS_KEY, resize
from distill.task import Task

ARCHITECTURES = ("marian", "bart", "mbart", "m2m_100", "t5", "mt5")
POSITIONS = "max_position_embeddings"
GENERATION = "generation_config.json"
IGNORED = -100
"""What stands in labels where nothing is learned."""
COMPUTED = ("final_logits_bias",)
"""Weights that a checkpoint may lack: they are zeros."""


def load_seq2seq(folder: Path) -> nn.Module:
    """The encoder-decoder in `folder`, in float32 and evaluation mode; nothing of the folder is run.

    Raises:
        CheckpointError: the folder cannot be used, is of another architecture, or lacks weights.
    """
    open_checkpoint(folder)
    config = read_config(folder / "config.json")
    _expect_known(config, folder)
    if any(hasattr(config, key) for key in (SIZES_KEY, CHANNELS_KEY, RANKS_KEY)):
        return _smaller(config, folder)
    model, gaps = from_pretrained(AutoModelForSeq2SeqLM, folder)
    bad = sorted(key for key in gaps if not key.endswith(COMPUTED))
    if bad:
        raise CheckpointError(f"{folder}: weights are missing, or of another shape than the config's", bad)
    for name in computed(model):  # transformers forgets, while loading, that they are not learned
        model.get_parameter(name).requires_grad_(False)
    return model


def _smaller(config: Any, folder: Path) -> nn.Module:
    """A model that was pruned or factorised: built from its config, made as small as that says, filled strictly.

    Raises:
        CheckpointError: weights and config do not fit, or a file cannot be read.
    """
    model = _from_config(config)
    load_strictly(model, folder)
    if (folder / GENERATION).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return cast(nn.Module, model.eval())


def _from_config(config: Any) -> Any:
    """A model with random weights, as small as its config says.

    Raises:
        CheckpointError: no such model can be built.
    """
    try:
        model = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # each architecture complains in its own way
        raise CheckpointError("no encoder-decoder can be built from the config", [first_line(error)]) from error
    resize(model)
    return model


def _expect_known(config: Any, where: object) -> None:
    """Refuse what is no encoder-decoder that translates."""
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"{where}: {config.model_type} models do not translate; supported: {known}")


def build_seq2seq(
    source: Path | Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, task: Task, seed: int
) -> nn.Module:
    """An encoder-decoder with random weights, from a config.json or its keys.

    Vocabulary and special ids are the tokenizer's. The decoder starts from padding and may not answer with it;
    embeddings are scaled by the root of the width (Vaswani et al. 2017, section 3.4) where the keys do not say
    otherwise and the architecture can.

    Raises:
        CheckpointError: no such model can be built.
        RecipeError: it has too few positions for the task.
    """
    config = read_config(source) if isinstance(source, Path) else config_from(source)
    _expect_known(config, source if isinstance(source, Path) else "the config")
    if not isinstance(source, Path):
        _expect_keys(config, source)
    _fill(config, tokenizer, given=source if isinstance(source, Mapping) else config.to_dict())
    _expect_room(config, task)
    torch.manual_seed(seed)
    model = _from_config(config)
    model.generation_config.update(
        bad_words_ids=[[config.pad_token_id]],
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        bos_token_id=None,
        forced_eos_token_id=None,
        max_length=task.max_target_length or task.max_length,
    )
    return cast(nn.Module, model.eval())


def _expect_keys(config: Any, given: Mapping[str, Any]) -> None:
    """Refuse keys that the architecture does not have: transformers would keep them and use a default.

    Raises:
        CheckpointError: naming each with the nearest key.
    """
    known = [*type(config)().to_dict(), *type(config).attribute_map]
    problems = []
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            problems.append(
                f"{key}: {config.model_type} has no such key" + (f"; did you mean {close[0]}?" if close else "")
            )
    if problems:
        raise CheckpointError("the config names keys that its architecture does not have", problems)


def _fill(config: Any, tokenizer: PreTrainedTokenizerBase, given: Mapping[str, Any]) -> None:
    """What follows from the tokenizer."""
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "decoder_start_token_id": tokenizer.pad_token_id,
        "forced_eos_token_id": None,
    }
    if hasattr(config, "decoder_vocab_size"):
        values["decoder_vocab_size"] = len(tokenizer)
    if hasattr(config, "scale_embedding") and "scale_embedding" not in given:
        values["scale_embedding"] = True
    for key, value in values.items():
        setattr(config, key, value)


def _expect_room(config: Any, task: Task) -> None:
    """Refuse a model with fewer positions than the task may use."""
    room, needed = getattr(config, POSITIONS, None), max(task.max_length, task.max_target_length or 0)
    if room is not None and room < needed:
        raise RecipeError(f"the config's {POSITIONS} is {room}, the task uses up to {needed} (task.max_length)")


def set_languages(model: nn.Module, tokenizer: PreTrainedTokenizerBase, task: Task) -> None:
    """Tell tokenizer and model which languages the task is about, if they know several.

    Sources get the mark of their language. Translations begin with the mark of theirs, which the model's generation
    config forces (mBART-50, M2M100), or from which the decoder starts (mBART).

    Raises:
        RecipeError: a language that the tokenizer does not know, or none where it needs one.
    """
    if not hasattr(tokenizer, "src_lang"):
        return
    own = cast(Any, tokenizer)
    wanted = {"source_language": task.source_language, "target_language": task.target_language}
    problems = [f"task.{key}: {_language_problem(tokenizer, code)}" for key, code in wanted.items()]
    problems = [problem for problem in problems if not problem.endswith(": ")]
    if problems:
        raise RecipeError("the model needs the languages of the task as its tokenizer calls them", problems)
    own.src_lang, own.tgt_lang = task.source_language, task.target_language
    mark = tokenizer.convert_tokens_to_ids(str(task.target_language))
    first = tokenizer(text_target="a").input_ids[0] == mark
    setattr(cast(Any, model).generation_config, "forced_bos_token_id" if first else "decoder_start_token_id", mark)


def _language_problem(tokenizer: PreTrainedTokenizerBase, code: str | None) -> str:
    """Why this is no language of the tokenizer; empty when it is one."""
    if code is None:
        return "expected a language code, found none"
    if tokenizer.convert_tokens_to_ids(code) in (None, tokenizer.unk_token_id):
        return f"the tokenizer has no {code!r}"
    return ""


def shifted(model: nn.Module, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads to learn `labels` `(batch, length)`: the start, then all but the last of each row."""
    prepare = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if prepare is not None:
        return cast(torch.Tensor, prepare(labels=labels))
    config = model_config(model)
    start = labels.new_full((len(labels), 1), config.decoder_start_token_id)
    moved = torch.cat([start, labels[:, :-1]], dim=1)
    return moved.masked_fill(moved == IGNORED, config.pad_token_id)
