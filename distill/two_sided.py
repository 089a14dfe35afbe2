"""Tokenizers that divide sources in one way and targets in another, over one vocabulary.

A text that a model expects before each source (T5's "translate English to Italian: ") belongs to sources alone, and
Marian's models come with a tokenizer for each language. The source's is tokenizer.json, which bundles carry; it also
makes text of what was written. The target's, which only learning needs, lies beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distill.errors import CheckpointError, RecipeError

TARGET = "target_tokenizer.json"
PREFIX = "<source prefix>"
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class TwoSidedTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc]
    """A fast tokenizer that divides `text_target` with a tokenizer of its own."""

    def __init__(self, source: Tokenizer, target: Tokenizer, **settings: Any) -> None:
        """Both have the same ids; `settings` are those of any fast tokenizer."""
        super().__init__(tokenizer_object=source, **settings)
        self.sides = (self.backend_tokenizer, target)

    def _switch_to_input_mode(self) -> None:
        self._tokenizer = self.sides[0]

    def _switch_to_target_mode(self) -> None:
        self._tokenizer = self.sides[1]

    def save_pretrained(self, save_directory: Any, **named: Any) -> tuple[str, ...]:
        """Write both, under transformers' names and `TARGET`; others than us read the source's."""
        found: tuple[str, ...] = super().save_pretrained(save_directory, **named)
        settings = Path(save_directory) / "tokenizer_config.json"
        value = json.loads(settings.read_text(encoding="utf-8"))
        settings.write_text(json.dumps(value | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
        self.sides[1].save(str(Path(save_directory) / TARGET))
        return found


def two_sided(tokenizer: PreTrainedTokenizerBase, source: Tokenizer, target: Tokenizer) -> TwoSidedTokenizer:
    """`source` and `target` under the names that `tokenizer` has for its special tokens."""
    special = {name: getattr(tokenizer, name) for name in SPECIAL if getattr(tokenizer, name, None) is not None}
    inputs = {"model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
    return TwoSidedTokenizer(source, target, **inputs, **special)


def read_target(folder: Path) -> Tokenizer | None:
    """The target's tokenizer in a folder, if it has one.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = folder / TARGET
    if not path.exists():
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def with_prefix(tokenizer: PreTrainedTokenizerBase, prefix: str) -> TwoSidedTokenizer:
    """A tokenizer that puts `prefix` before each source, as tokens, whatever is cut from the text behind it.

    Raises:
        RecipeError: the tokenizer has the languages of its texts in this place, or the prefix has no tokens.
    """
    if hasattr(tokenizer, "src_lang"):
        raise RecipeError("teacher.source_prefix: this tokenizer marks sources with their language; leave it out")
    target: Tokenizer = tokenizer.backend_tokenizer
    target.no_padding()
    target.no_truncation()
    added = target.encode(prefix, add_special_tokens=False)
    if not added.ids:
        raise RecipeError(f"teacher.source_prefix: the tokenizer makes no tokens of {prefix!r}")
    before, after = _around(target)
    source = Tokenizer.from_str(target.to_str())
    names = [*before, PREFIX, *after]
    ids = {name: [target.token_to_id(name)] for name in {*before, *after}} | {PREFIX: added.ids}
    source.post_processor = processors.TemplateProcessing(
        single=[*before, PREFIX, "$A", *after],
        pair=[*before, PREFIX, "$A", "$B", *after],
        special_tokens=[
            {"id": name, "ids": ids[name], "tokens": [name] if name != PREFIX else added.tokens}
            for name in dict.fromkeys(names)
        ],
    )
    return two_sided(tokenizer, source, target)


def _around(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """The special tokens before and after a text."""
    whole, bare = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    start = next(i for i in range(len(whole.ids)) if whole.ids[i : i + len(bare.ids)] == bare.ids)
    return whole.tokens[:start], whole.tokens[start + len(bare.ids) :]
