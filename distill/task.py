"""What is asked of a model: kind, labels, columns, metric and maximum length. Plain and torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("classification", "translation")
METRICS = ("accuracy", "macro_f1")
"""What classification is judged by."""
TRANSLATION_METRICS = ("bleu", "chrf")
OWN_KEYS = {
    "classification": ("labels", "pair", "label"),
    "translation": ("target", "source_language", "target_language", "max_target_length"),
}
"""The fields that only one kind of task has."""


def metrics_of(kind: str) -> tuple[str, ...]:
    """What a kind of task is judged by, the usual metric first."""
    return TRANSLATION_METRICS if kind == "translation" else METRICS


def highest(metric: str) -> float:
    """What a metric gives to a model that makes no mistake: 100 for BLEU and chrF, 1 for shares."""
    return 100.0 if metric in TRANSLATION_METRICS else 1.0


@dataclass(frozen=True)
class Task:
    """One question put to a model.

    `labels` are in the order of the model's outputs (none for translation); `text`, `pair`, `label` and `target` name
    columns; the languages are codes of the model's tokenizer; `max_length` and `max_target_length` (None: the same)
    count tokens, special tokens included.
    """

    kind: str
    labels: tuple[str, ...]
    text: str = "text"
    pair: str | None = None
    label: str = "label"
    metric: str = "accuracy"
    max_length: int = 128
    target: str = "target"
    source_language: str | None = None
    target_language: str | None = None
    max_target_length: int | None = None

    @property
    def num_labels(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    def to_json(self) -> dict[str, Any]:
        """The task as JSON values, without what is None or belongs to another kind."""
        other = [key for kind, keys in OWN_KEYS.items() if kind != self.kind for key in keys]
        known = {key: value for key, value in asdict(self).items() if value is not None and key not in other}
        return known | ({"labels": list(self.labels)} if "labels" in known else {})

    @staticmethod
    def from_json(value: object) -> Task:
        """Read what `to_json` wrote.

        Raises:
            ValueError: naming every field that does not fit.
        """
        if not isinstance(value, dict):
            raise ValueError("the task is not a JSON object")
        problems = _problems(value)
        if problems:
            raise ValueError("; ".join(problems))
        known = {key: value[key] for key in Task.__dataclass_fields__ if key in value}
        metric = metrics_of(value["kind"])[0]
        return Task(**{"metric": metric, **known, "labels": tuple(value.get("labels", ()))})


def _problems(value: dict[str, Any]) -> list[str]:
    """Everything that is wrong with a task's JSON."""
    kind, length = value.get("kind"), value.get("max_length", 128)
    known = metrics_of("translation" if kind == "translation" else "classification")
    checks = [
        (kind in KINDS, f"kind: expected one of {', '.join(KINDS)}, found {kind!r}"),
        _label_check(kind, value.get("labels")),
        (_is_count(length), f"max_length: expected a whole number of at least 3, found {length!r}"),
        (value.get("metric", known[0]) in known, f"metric: expected one of {', '.join(known)}"),
        *_column_checks(value),
        *_translation_checks(value),
    ]
    return [problem for fits, problem in checks if not fits]


def _label_check(kind: object, labels: object) -> tuple[bool, str]:
    """Classification has labels, translation has none."""
    if kind == "translation":
        return labels in (None, []), "labels: expected none for translation"
    return _are_labels(labels), "labels: expected a list of at least two different strings"


def _column_checks(value: dict[str, Any]) -> list[tuple[bool, str]]:
    """Whether columns are names."""
    names = ("text", "label", "target")
    checks = [(isinstance(value.get(key, ""), str), f"{key}: expected a column's name") for key in names]
    return [*checks, (isinstance(value.get("pair"), str | None), "pair: expected a column's name or null")]


def _translation_checks(value: dict[str, Any]) -> list[tuple[bool, str]]:
    """What only translation has."""
    languages = ("source_language", "target_language")
    checks = [(isinstance(value.get(key), str | None), f"{key}: expected a language code or null") for key in languages]
    length = value.get("max_target_length")
    fits = length is None or _is_count(length)
    return [*checks, (fits, f"max_target_length: expected a whole number of at least 3 or null, found {length!r}")]


def _are_labels(labels: object) -> bool:
    """Whether these can be a task's labels."""
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return False
    return len(labels) >= 2 and len(set(labels)) == len(labels)


def _is_count(length: object) -> bool:
    """Whether this can be a maximum length (two special tokens and one more)."""
    return isinstance(length, int) and not isinstance(length, bool) and length >= 3
