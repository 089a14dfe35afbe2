"""Does a translation bundle answer like the model it was made from? Logit by logit, and on whole translations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.decoding import Decoding
from export.looped import fits_loop
from export.parity import Batch, ParityResult, awkward_batches, compare
from export.runtime import Translator

TEXTS = 60  # so many are translated whole; torch takes a while
ROWS = 15  # odd, so that no shape in the graph can rest on a round number
PREFIX = 11  # tokens of random targets
BEAMS = 4

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


def compare_logits(model: nn.Module, translator: Translator, texts: Sequence[str]) -> ParityResult:
    """Compare logits on real sources and awkward shapes, for random targets: with the past kept, and all at once."""
    length = min(PREFIX, translator.decoding.max_length)
    batches = [_with_target(batch, translator, length) for batch in _sources(translator, texts)]
    return compare(lambda batch: _torch_logits(model, batch), lambda batch: _bundle_logits(translator, batch), batches)


def _sources(translator: Translator, texts: Sequence[str]) -> Iterator[Batch]:
    """Sources as ids and masks; padding stands only where the mask says so."""
    pad, rows = translator.decoding.pad, translator.limits.rows
    for start in range(0, min(len(texts), TEXTS), ROWS):
        yield translator.reader.arrays(translator.reader.read(list(texts[start : start + ROWS])))
    for batch in awkward_batches(rows, 2, translator.task.max_length):
        ids = np.where(batch["input_ids"] == pad, (pad + 1) % rows, batch["input_ids"])
        yield {**batch, "input_ids": np.where(batch["attention_mask"], ids, pad)}


def _with_target(batch: Batch, translator: Translator, length: int) -> Batch:
    """The batch with a random target for each source."""
    random, rows = np.random.default_rng(0), translator.limits.rows
    target = random.integers(0, rows, (len(batch["input_ids"]), length))
    target = np.where(target == translator.decoding.pad, (translator.decoding.pad + 1) % rows, target)
    target[:, 0] = translator.decoding.start
    return {**batch, "decoder_input_ids": target}


def _torch_logits(model: nn.Module, batch: Batch) -> Logits:
    """Logits `(positions + 1, …)` of every position, the last one twice, as `(rows, vocabulary)`."""
    inputs = {name: torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    with torch.inference_mode():
        found = cast(Logits, model(**inputs).logits.transpose(0, 1).numpy())
    return np.concatenate([found, found[-1:]]).reshape(-1, found.shape[-1])


def _bundle_logits(translator: Translator, batch: Batch) -> Logits:
    """The same from the bundle: token by token, then the whole target at once."""
    source, target = (batch["input_ids"], batch["attention_mask"]), batch["decoder_input_ids"]
    step = translator.engine.start(*source)
    found = [step(target[:, position]) for position in range(target.shape[1])]
    return np.concatenate([*found, translator.engine.start(*source)(target)])


def compare_translations(model: nn.Module, translator: Translator, texts: Sequence[str]) -> dict[str, Any]:
    """The share of texts whose translation is the same, token by token: greedy, and with beams."""
    batches = list(_sources(translator, texts))[: -(-min(len(texts), TEXTS) // ROWS)]
    beams = sorted({1, BEAMS, translator.decoding.beams})
    return {
        "greedy" if width == 1 else f"beams_{width}": {
            "same": _share(model, translator, batches, replace(translator.decoding, beams=width)),
            "n": sum(len(batch["input_ids"]) for batch in batches),
        }
        for width in beams
    }


def _share(model: nn.Module, translator: Translator, batches: Sequence[Batch], rules: Decoding) -> float:
    """How many of the sources both translate alike, in steps and within the graph where that is a way."""
    same, count = 0, 0
    for batch in batches:
        expected = generate(model, batch["input_ids"], batch["attention_mask"], rules)
        found = translator.translate_ids(batch["input_ids"], batch["attention_mask"], rules)
        ways = [[each[0].tokens for each in found]]
        if fits_loop(rules, 1, scored=False):
            ways.append(_looped(translator, batch, rules))
        same += sum(all(tokens == wanted for tokens in each) for *each, wanted in zip(*ways, expected, strict=True))
        count += len(expected)
    return same / count if count else 1.0


def _looped(translator: Translator, batch: Batch, rules: Decoding) -> list[list[int]]:
    """What a loop of the graph writes; a search is of one sentence."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if rules.beams == 1:
        found = translator.engine.write(ids, mask, rules)
    else:
        found = [translator.engine.write(ids[[row]], mask[[row]], rules)[0] for row in range(len(ids))]
    return [each[0].tokens for each in found]


def generate(model: nn.Module, ids: Ids, mask: Ids, rules: Decoding) -> list[list[int]]:
    """What `generate` of transformers writes under these rules, without start and end token."""
    scored = {} if rules.beams == 1 else {"length_penalty": rules.length_penalty, "early_stopping": False}
    device = next(model.parameters()).device
    with torch.inference_mode():
        found = cast(Any, model).generate(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            do_sample=False,
            num_beams=rules.beams,
            max_length=rules.max_length + 1,
            no_repeat_ngram_size=rules.no_repeat_ngram_size,
            decoder_start_token_id=rules.start,
            forced_bos_token_id=rules.forced_start,
            forced_eos_token_id=rules.forced_end,
            suppress_tokens=list(rules.suppressed) or None,
            **scored,
        )
    return [_until_end(row[1:], rules) for row in found.tolist()]


def _until_end(tokens: list[int], rules: Decoding) -> list[int]:
    """Tokens before the end token."""
    return tokens[: tokens.index(rules.end)] if rules.end in tokens else tokens[: rules.max_length]
