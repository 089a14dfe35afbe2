"""What is asked of a model: kind, labels, columns, metric and maximum length. Plain and torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("classification",)
METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Task:
    """One question put to a model.

    `labels` are in the order of the model's outputs; `text`, `pair` and `label` name columns;
    `max_length` counts tokens, special tokens included.
    """

    kind: str
    labels: tuple[str, ...]
    text: str = "text"
    pair: str | None = None
    label: str = "label"
    metric: str = "accuracy"
    max_length: int = 128

    @property
    def num_labels(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    def to_json(self) -> dict[str, Any]:
        """The task as JSON values."""
        return {**asdict(self), "labels": list(self.labels)}

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
        return Task(**{**known, "labels": tuple(value["labels"])})


def _problems(value: dict[str, Any]) -> list[str]:
    """Everything that is wrong with a task's JSON."""
    labels = value.get("labels")
    length = value.get("max_length", 128)
    checks = [
        (value.get("kind") in KINDS, f"kind: expected one of {', '.join(KINDS)}, found {value.get('kind')!r}"),
        (_are_labels(labels), "labels: expected a list of at least two different strings"),
        (_is_count(length), f"max_length: expected a whole number of at least 3, found {length!r}"),
        (value.get("metric", "accuracy") in METRICS, f"metric: expected one of {', '.join(METRICS)}"),
    ]
    checks += [(isinstance(value.get(key, ""), str), f"{key}: expected a column's name") for key in ("text", "label")]
    checks.append((isinstance(value.get("pair"), str | None), "pair: expected a column's name or null"))
    return [problem for fits, problem in checks if not fits]


def _are_labels(labels: object) -> bool:
    """Whether these can be a task's labels."""
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return False
    return len(labels) >= 2 and len(set(labels)) == len(labels)


def _is_count(length: object) -> bool:
    """Whether this can be a maximum length (two special tokens and one more)."""
    return isinstance(length, int) and not isinstance(length, bool) and length >= 3
