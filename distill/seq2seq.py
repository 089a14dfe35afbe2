"""Encoder-decoders on disk: loading them, and telling them their languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from distill.checkpoint import open_checkpoint
from distill.config_file import first_line, read_config
from distill.errors import CheckpointError, RecipeError
from distill.task import Task

ARCHITECTURES = ("marian", "bart", "mbart", "m2m_100", "t5", "mt5")
COMPUTED = ("final_logits_bias", "embed_positions.weight")
"""Weights that a checkpoint may lack: zeros, and sines."""


def load_seq2seq(folder: Path) -> nn.Module:
    """The encoder-decoder in `folder`, in float32 and evaluation mode; nothing of the folder is run.

    Raises:
        CheckpointError: the folder cannot be used, is of another architecture, or lacks weights.
    """
    open_checkpoint(folder)
    _expect_known(read_config(folder / "config.json"), folder)
    try:
        model, found = AutoModelForSeq2SeqLM.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be loaded", [first_line(error)]) from error
    gaps = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    bad = sorted(key for key in gaps if not key.endswith(COMPUTED))
    if bad:
        raise CheckpointError(f"{folder}: weights are missing, or of another shape than the config's", bad)
    return cast(nn.Module, model.eval())


def _expect_known(config: Any, where: object) -> None:
    """Refuse what is no encoder-decoder that translates."""
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"{where}: {config.model_type} models do not translate; supported: {known}")


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
