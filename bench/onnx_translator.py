"""Translating bundles in onnxruntime, through the public Translator. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.backends import Batch
from bench.written import Written, of_length, searched
from distill.task import Task
from export.hypotheses import Hypothesis
from export.runtime import Translator


@dataclass(frozen=True)
class BundleTranslator:
    """A translating bundle."""

    translator: Translator

    @property
    def task(self) -> Task:
        """What the bundle answers."""
        return self.translator.task

    def run(self, batch: Batch) -> list[list[Hypothesis]]:
        """Write as many tokens as the sources have."""
        ids = batch["input_ids"]
        rules = of_length(self.translator.decoding, ids.shape[1])
        return self.translator.translate_ids(ids, batch["attention_mask"], rules)

    def translate(self, texts: Sequence[str], beams: int) -> list[Written]:
        """One batch of sentences."""
        reader = self.translator.reader
        arrays = reader.arrays(reader.read(list(texts)))
        rules = searched(self.translator.decoding, beams)
        found = self.translator.translate_ids(arrays["input_ids"], arrays["attention_mask"], rules)
        return [Written(reader.decode(best.tokens), len(best.tokens), best.stopped) for best, *_ in found]
