"""What a translation model answers: one text for each text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from distill.errors import RecipeError
from distill.task import Task
from export.bundle import Bundle
from export.decode import search
from export.decoding import Decoding, read_decoding
from export.hypotheses import Hypothesis
from export.looped import fits_loop
from export.steps import Engine, open_engine
from export.texts import Limits, TextReader, Tokens, check_texts, open_reader

WINDOW = 4096  # so many texts are tokenized and sorted together; bounds the memory of a long list
BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Translation:
    """A text in the other language.

    `score` is the sum of its tokens' log-probabilities over their number to the power of the length penalty; a greedy
    answer has one only where scores were asked for. `truncated`: the source was too long to be read to its end;
    `stopped`: the translation reached the longest length, and may lack its end or repeat itself. `others` are the next
    best translations, as many as were asked for and found.
    """

    text: str
    score: float | None
    truncated: bool
    stopped: bool
    others: tuple[Translation, ...] = ()


@dataclass(frozen=True)
class Translator:
    """A loaded bundle. Safe to call from many threads; create it after forking."""

    bundle: Bundle
    provider: str
    threads: int | None
    limits: Limits
    decoding: Decoding
    reader: TextReader = field(repr=False)
    engine: Engine = field(repr=False)

    @property
    def task(self) -> Task:
        """What the model answers."""
        return self.bundle.task

    @property
    def bundle_id(self) -> str:
        """The sha256 of bundle.json: pin it to know that the bundle is the one you tested."""
        return self.bundle.id

    def __call__(
        self,
        texts: Sequence[str],
        *,
        beams: int | None = None,
        length_penalty: float | None = None,
        max_length: int | None = None,
        no_repeat_ngram_size: int | None = None,
        n_best: int = 1,
        scores: bool = False,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[Translation]:
        """One translation a text, in the order of `texts`; a text of nothing but white space becomes an empty one.

        What is None is as the bundle has it in `decoding`. `max_length` counts new tokens, the end token included.
        A batch holds at most `batch_tokens` source tokens times beams, padding included, or a single text.

        Raises:
            TypeError: a text is not a string.
            RecipeError: naming every option that does not fit.
        """
        rules = self.decoding.changed(
            {
                "beams": beams, "length_penalty": length_penalty, "max_length": max_length,
                "no_repeat_ngram_size": no_repeat_ngram_size,
            }
        )  # fmt: skip
        if not 1 <= n_best <= rules.beams or batch_tokens < 1:
            raise RecipeError(
                "these options do not fit",
                [f"n_best: expected 1 to beams ({rules.beams}), found {n_best}; batch_tokens: at least 1"],
            )
        checked = [str(text) for text in check_texts(texts, pair=False)]
        answers: list[Translation] = []
        for start in range(0, len(checked), WINDOW):
            answers += self._window(checked[start : start + WINDOW], rules, n_best, scores, batch_tokens)
        return answers

    def try_out(self) -> None:
        """Answer a text, and read the longest input of the highest id.

        Raises:
            BundleError: the model fails.
        """
        self(["a"], max_length=1)
        longest = np.full((1, self.task.max_length), self.limits.rows - 1)
        step = self.engine.start(longest, np.ones_like(longest))
        rules = self.decoding if step.words is None else self.decoding.among(step.words)
        step(np.array([rules.start]))

    def translate_ids(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], rules: Decoding, n_best: int = 1, scored: bool = False
    ) -> list[list[Hypothesis]]:
        """Hypotheses for sources that are already ids, `(texts, length)` with a mask of the same shape."""
        if fits_loop(rules, len(ids), scored):
            return self.engine.write(ids, mask, rules, n_best)
        step = self.engine.start(ids, mask)
        words = step.words
        if words is None:
            return search(step, len(ids), rules, n_best, scored)
        found = search(step, len(ids), rules.among(words), n_best, scored)
        return [[replace(each, tokens=words[each.tokens].tolist()) for each in row] for row in found]

    def _window(self, texts: list[str], rules: Decoding, n_best: int, scored: bool, budget: int) -> list[Translation]:
        """Translations of texts that are sorted by length together."""
        tokens = self.reader.read(texts)
        answers = [Translation("", 0.0 if scored or rules.beams > 1 else None, False, False)] * len(texts)
        full = [index for index, text in enumerate(texts) if text.strip()]
        for rows in _batches(full, tokens, budget // rules.beams):
            arrays = self.reader.arrays([tokens[row] for row in rows])
            found = self.translate_ids(arrays["input_ids"], arrays["attention_mask"], rules, n_best, scored)
            for row, hypotheses in zip(rows, found, strict=True):
                answers[row] = self._answer(hypotheses, tokens[row].truncated)
        return answers

    def _answer(self, hypotheses: Sequence[Hypothesis], truncated: bool) -> Translation:
        """The best hypothesis as text, with the others behind it."""
        best, *others = (
            Translation(self.reader.decode(each.tokens), each.score, truncated, each.stopped) for each in hypotheses
        )
        return replace(best, others=tuple(others))


def _batches(rows: Sequence[int], tokens: Sequence[Tokens], budget: int) -> Iterator[list[int]]:
    """Rows by length, the longest first, in batches of at most `budget` tokens with their padding."""
    order = sorted(rows, key=lambda row: -len(tokens[row].ids))
    start = 0
    while start < len(order):
        size = max(1, budget // len(tokens[order[start]].ids))
        yield order[start : start + size]
        start += size


def open_translator(
    bundle: Bundle, model: bytes, tokenizer: bytes, limits: Limits, provider: str, threads: int | None
) -> Translator:
    """The translator of a bundle whose files were read.

    Raises:
        BundleError, ProviderError, MissingExtraError: as `export.runtime.load`.
    """
    decoding = read_decoding(bundle.details, limits.rows)
    reader = open_reader(tokenizer, limits, bundle.task, parallel=threads != 1)
    engine = open_engine(bundle, model, provider, threads, limits.rows)
    return Translator(bundle, provider, threads, limits, decoding, reader, engine)
