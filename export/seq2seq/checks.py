"""What keeps an encoder-decoder from becoming a bundle, and how it is to be decoded once it is one."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from transformers import PreTrainedTokenizerBase

from distill.checkpoint import check_finite
from distill.encoder_decoders import ARCHITECTURES, architecture
from distill.errors import CheckpointError
from distill.task import Task
from export.decoding import Decoding
from export.exportable import EMBEDDED_LIMIT
from export.graphs.operators import KNOWN_ACTIVATIONS
from export.graphs.writer import LEAST_OPSET

UNSUPPORTED = {
    "repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0, "min_length": 0, "begin_suppress_tokens": None,
    "sequence_bias": None, "diversity_penalty": 0.0, "renormalize_logits": False,
    "exponential_decay_length_penalty": None,
}  # fmt: skip
"""Settings of `generate` that change its answers and that the runtime does not have, with what means "off"."""


def check(model: nn.Module, tokenizer: PreTrainedTokenizerBase, task: Task, opset: int) -> None:
    """Look at everything that an export needs.

    Raises:
        CheckpointError: NaN or infinite weights, or naming every reason against an export.
    """
    check_finite(model)
    checks = [
        *_fits_graph(model, opset),
        *_fits_tokenizer(model, tokenizer),
        *_fits_task(model, task),
        *_fits_search(model),
    ]
    problems = [problem for fits, problem in checks if not fits]
    if problems:
        raise CheckpointError("the checkpoint cannot be exported", problems)


def _fits_graph(model: nn.Module, opset: int) -> list[tuple[bool, str]]:
    """Whether the graph can be built and fits into one file."""
    config = cast(Any, model).config
    if config.model_type not in ARCHITECTURES:
        return [(False, f"architecture {config.model_type!r}: supported are {', '.join(sorted(ARCHITECTURES))}")]
    activation = getattr(config, architecture(config).activation)
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    return [
        (activation in KNOWN_ACTIVATIONS, f"activation {activation!r}: supported are {', '.join(KNOWN_ACTIVATIONS)}"),
        (size <= EMBEDDED_LIMIT, f"size: {size / 1e9:.1f} GB of weights, one .onnx file holds 2 GB at most"),
        (opset >= LEAST_OPSET, f"opset {opset}: translation models need at least {LEAST_OPSET} (export.opset)"),
    ]


def _fits_tokenizer(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[tuple[bool, str]]:
    """Whether every id of the tokenizer has an embedding row and a logit."""
    rows = cast(Any, model).get_input_embeddings().weight.shape[0]
    outputs = cast(Any, model).get_output_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values(), default=-1)
    return [
        (highest < rows, f"tokenizer: it makes ids up to {highest}, the model has {rows} embedding rows"),
        (
            rows == outputs,
            f"output: {outputs} logits for {rows} embedding rows: expected one vocabulary for both sides",
        ),
    ]


def _fits_task(model: nn.Module, task: Task) -> list[tuple[bool, str]]:
    """Whether the model has as many positions as the task may use."""
    most = getattr(cast(Any, model).config, "max_position_embeddings", None)
    asked = {"max_length": task.max_length, "max_target_length": task.max_target_length or task.max_length}
    return [
        (most is None or length <= most, f"{name}: the task asks for {length} tokens, the model has {most} positions")
        for name, length in asked.items()
    ]


def _fits_search(model: nn.Module) -> list[tuple[bool, str]]:
    """Whether the runtime can do what the generation config asks for."""
    settings = cast(Any, model).generation_config
    checks = [
        (getattr(settings, name, None) in (None, off), f"generation config: {name} is not supported")
        for name, off in UNSUPPORTED.items()
    ]
    words = settings.bad_words_ids or []
    start = _start(model)
    return [
        *checks,
        (all(len(word) == 1 for word in words), "generation config: bad_words_ids of several tokens are not supported"),
        (isinstance(start, int), "generation config: there is no decoder_start_token_id"),
        (len(_ends(model)) == 1, f"generation config: expected one eos_token_id, found {_ends(model)}"),
        (settings.pad_token_id is not None, "generation config: there is no pad_token_id"),
        (
            settings.pad_token_id != start or cast(Any, model).config.model_type != "m2m_100",
            "decoder_start_token_id: it is padding, to which M2M100 gives no position",
        ),
    ]


def decoding_of(model: nn.Module, task: Task) -> Decoding:
    """How `generate` would decode this model, up to the task's longest target."""
    settings = cast(Any, model).generation_config
    words = [token for word in settings.bad_words_ids or [] for token in word]
    return Decoding(
        start=_start(model),
        end=_ends(model)[0],
        pad=settings.pad_token_id,
        max_length=task.max_target_length or task.max_length,
        forced_start=settings.forced_bos_token_id,
        forced_end=settings.forced_eos_token_id,
        suppressed=tuple(sorted({*words, *(settings.suppress_tokens or [])})),
        beams=settings.num_beams or 1,
        length_penalty=float(1.0 if settings.length_penalty is None else settings.length_penalty),
        no_repeat_ngram_size=settings.no_repeat_ngram_size or 0,
    )


def _start(model: nn.Module) -> Any:
    """The token that the decoder starts from."""
    start = cast(Any, model).generation_config.decoder_start_token_id
    return cast(Any, model).config.decoder_start_token_id if start is None else start


def _ends(model: nn.Module) -> list[int]:
    """The tokens that end a translation."""
    ends = cast(Any, model).generation_config.eos_token_id
    return list(ends) if isinstance(ends, list) else [] if ends is None else [ends]
