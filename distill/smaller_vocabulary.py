"""A model and its tokenizer with the pieces that its texts use: embeddings and output matrix shrink together.

Of multilingual models the vocabulary is the largest part: 250,054 pieces of width 1024 are 1 GB of mBART-large-50's
2.4 GB, and two languages use a tenth of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from distill.dataset import Dataset
from distill.errors import CheckpointError
from distill.label import ASKED
from distill.layers import model_config
from distill.low_rank import resize
from distill.smaller_tokenizer import shrink_tokenizer

FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "m2m_100")
"""Architectures whose positions are counted from the padding id, which therefore has to stay."""
LISTS = ("suppress_tokens", "begin_suppress_tokens")
UNMAPPED = ("sequence_bias", "force_words_ids")


@dataclass(frozen=True)
class Pruned:
    """A model and its tokenizer; `ids` has the old id of each of its pieces, `before` the old pieces and bytes."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    ids: tuple[int, ...]
    before: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Pieces, and bytes of all weights in float32, before and after."""
        return {"before": dict(self.before), "after": sizes(self.model)}


def sizes(model: nn.Module) -> dict[str, int]:
    """Rows of the embedding table, and bytes of all weights in float32."""
    rows = cast(Any, model).get_input_embeddings().weight.shape[0]
    return {"pieces": rows, "bytes": 4 * sum(parameter.numel() for parameter in model.parameters())}


def learned_texts(dataset: Dataset) -> Iterator[str]:
    """All texts that a student learns from but those that its teacher writes: sources, second texts, translations."""
    for split in (dataset.splits[name] for name in ASKED if name in dataset.splits):
        for texts in (split.texts, split.pairs, split.targets):
            yield from texts or ()


def prune_vocabulary(model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Pruned:
    """The same model and tokenizer with the pieces that `texts` use, and those that neither can do without.

    Each of the texts is divided as before, and for each the logits of all pieces that are left are as before.

    Raises:
        CheckpointError: naming every reason why the vocabulary cannot shrink.
        DataError: there is no text.
    """
    _expect_fitting(model, tokenizer)
    config, generation = model_config(model), getattr(model, "generation_config", None)
    also = {each for settings in (config, generation) for _, found in _named_ids(settings) for each in found}
    if config.model_type in FROM_PADDING:
        also |= set(range(config.pad_token_id + 1))
    made, ids = shrink_tokenizer(tokenizer, texts, also)
    return Pruned(_with_rows(model, ids), made, tuple(ids), sizes(model))


def _expect_fitting(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model whose rows are not its tokenizer's pieces.

    Raises:
        CheckpointError: with all reasons.
    """
    config, generation = model_config(model), getattr(model, "generation_config", None)
    known = set(tokenizer.get_vocab().values())
    rows, most = sizes(model)["pieces"], max(known, default=-1)
    checks = [
        (most < rows, f"tokenizer: it makes ids up to {most}, the model has {rows} embedding rows"),
        (
            getattr(config, "share_encoder_decoder_embeddings", True),
            "share_encoder_decoder_embeddings: expected one vocabulary for both sides",
        ),
        *(
            (
                getattr(generation, key, None) is None,
                f"generation config: {key} names pieces in a way that is not known",
            )
            for key in UNMAPPED
        ),
        *(
            (each in known, f"{key}: {each} is no id of the tokenizer's")
            for settings in (config, generation)
            for key, found in _named_ids(settings)
            for each in found
        ),
    ]
    problems = list(dict.fromkeys(problem for fits, problem in checks if not fits))
    if problems:
        raise CheckpointError("the model's vocabulary cannot shrink", problems)


def _named_ids(settings: Any) -> Iterator[tuple[str, list[int]]]:
    """The special ids of a config or generation config by key: `pad_token_id`, `forced_bos_token_id` …"""
    for key, value in settings.to_dict().items() if settings is not None else ():
        if key.endswith("_token_id") and value is not None:
            yield key, value if isinstance(value, list) else [value]


def _with_rows(model: nn.Module, ids: Sequence[int]) -> nn.Module:
    """A copy of the model for the pieces with these ids; every weight that has a row or column a piece keeps theirs."""
    number = {old: new for new, old in enumerate(ids)}
    config = copy.deepcopy(model_config(model))
    _renumber(config, number)
    for key in ("vocab_size", "decoder_vocab_size"):
        if hasattr(config, key):
            setattr(config, key, len(ids))
    made = cast(Any, type(model))(config)
    resize(made)
    weights, rows = model.state_dict(), torch.tensor(ids)
    made.load_state_dict({key: _kept(weights[key], value, rows) for key, value in made.state_dict().items()})
    made.tie_weights()
    if getattr(model, "generation_config", None) is not None:
        made.generation_config = copy.deepcopy(model.generation_config)
        _renumber(made.generation_config, number)
    return cast(nn.Module, made.to(cast(Any, model).dtype).train(model.training))


def _kept(weight: torch.Tensor, like: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A weight without what belongs to other pieces: along each axis that is shorter in `like`, these rows."""
    for axis, (old, new) in enumerate(zip(weight.shape, like.shape, strict=True)):
        weight = weight if old == new else weight.index_select(axis, rows)
    return weight


def _renumber(settings: Any, number: Mapping[int, int]) -> None:
    """Put new ids into a config; pieces that are gone need not be suppressed any more."""
    for key, found in list(_named_ids(settings)):
        new = [number[each] for each in found]
        setattr(settings, key, new if isinstance(getattr(settings, key), list) else new[0])
    for key in LISTS:
        listed = getattr(settings, key, None)
        if listed:
            setattr(settings, key, [number[each] for each in listed if each in number] or None)
    words = getattr(settings, "bad_words_ids", None)
    if words:
        settings.bad_words_ids = [
            [number[each] for each in word] for word in words if set(word) <= number.keys()
        ] or None
