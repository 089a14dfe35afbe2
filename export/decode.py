"""Greedy and beam search over any model that answers with logits, with the results of transformers' `generate`.

The model is a step: given the newest token of each row it answers logits `(rows, vocabulary)` and remembers the past.
Follows `GenerationMixin._sample` and `_beam_search` of transformers 5 (`do_sample=False`, `early_stopping=False`).
"""

from __future__ import annotations

import numpy as np

from export.beams import beam_search
from export.decoding import Decoding
from export.hypotheses import Hypothesis, Step, forbid, hypothesis, log_sums, require_numbers


def search(
    step: Step, sentences: int, rules: Decoding, n_best: int = 1, scored: bool = False
) -> list[list[Hypothesis]]:
    """The best hypotheses for each sentence, best first; greedy search scores only when asked to."""
    if not sentences:
        return []
    if rules.beams == 1:
        return [[each] for each in greedy(step, sentences, rules, scored)]
    return beam_search(step, sentences, rules, n_best)


def greedy(step: Step, sentences: int, rules: Decoding, scored: bool = False) -> list[Hypothesis]:
    """The likeliest token at each position; a sentence that has ended leaves the batch."""
    written = np.full((sentences, rules.max_length + 1), rules.start, np.int64)
    sums, lengths = np.zeros(sentences, np.float32), np.zeros(sentences, np.int64)
    alive, kept = np.arange(sentences), None
    for position in range(rules.max_length):
        logits = step(written[alive, position], kept, kept)
        sizes = log_sums(logits) if scored else np.float32(0)
        forced = forbid(logits, written[alive, : position + 1], position, rules)
        if forced is None:
            chosen = logits.argmax(-1)
            values = logits[np.arange(len(alive)), chosen]
            require_numbers(values)
            sums[alive] += values - sizes
        else:
            chosen = np.full(len(alive), forced)
        written[alive, position + 1] = chosen
        lengths[alive] = position + 1
        going = chosen != rules.end
        kept = None if going.all() else np.flatnonzero(going)
        alive = alive if kept is None else alive[kept]
        if not len(alive):
            break
    scores = [
        float(s / n**rules.length_penalty) if scored else None for s, n in zip(sums, lengths.tolist(), strict=True)
    ]
    return [
        hypothesis(row[1 : length + 1], score, rules)
        for row, length, score in zip(written, lengths, scores, strict=True)
    ]
