"""The README.md of a bundle: what it answers, how to embed it, and what was measured on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from distill.task import Task


class Entry(Protocol):
    """Size in bytes and sha256 of one file."""

    @property
    def bytes(self) -> int:
        """Size."""

    @property
    def sha256(self) -> str:
        """Hash in hex."""


def card(
    task: Task, precision: str, opset: int, model_file: str, files: Mapping[str, Entry], details: Mapping[str, Any]
) -> str:
    """The card as Markdown, from what will stand in bundle.json; `details` become a table, whatever they hold."""
    title = _plain(details.get("name") or "potstill bundle")
    pipeline = "translation" if task.kind == "translation" else "text-classification"
    sections = [
        f"---\nlibrary_name: onnx\npipeline_tag: {pipeline}\ntags:\n- potstill\n---",
        f"# {title}",
        f"Text {task.kind}, {precision}, made with potstill.",
        _facts(task, precision, opset),
        "## Use",
        "Needs `pip install 'potstill[cpu]'`: numpy, tokenizers and onnxruntime, no torch.",
        f'```python\nfrom potstill import load\n\nmodel = load("path/to/this/folder")\n{_example(task)}\n```',
        "Create the model after forking; one model can be called from many threads.",
        *_measured(details),
        "## Files",
        _table(("file", "bytes", "sha256"), ((f"`{n}`", e.bytes, f"`{e.sha256}`") for n, e in sorted(files.items()))),
        f"`{model_file}` is the model. `bundle.json` lists every file; the sha256 of `bundle.json` itself is the "
        "bundle's id: `compress verify` prints it.",
    ]
    return "\n\n".join(sections) + "\n"


def _facts(task: Task, precision: str, opset: int) -> str:
    """What a reader needs before using it."""
    languages = (task.source_language or "?", task.target_language or "?")
    kind = {
        "classification": [
            ("labels", ", ".join(task.labels)),
            ("input", "two texts" if task.pair else "one text"),
        ],
        "translation": [
            ("languages", " to ".join(languages)),
            ("longest answer", f"{task.max_target_length or task.max_length} tokens"),
        ],
    }
    rows = [
        *kind[task.kind],
        ("longest input", f"{task.max_length} tokens; what is longer is cut and marked `truncated`"),
        ("precision", precision),
        ("ONNX opset", opset),
        ("metric", task.metric),
    ]
    return _table(("", ""), rows)


def _example(task: Task) -> str:
    """One call."""
    if task.kind == "translation":
        return 'model(["a text"])[0].text'
    return 'model([("first text", "second text")])' if task.pair else 'model(["a text"])'


def _measured(details: Mapping[str, Any]) -> list[str]:
    """A section with every figure and word in `details`; how to decode is not measured, and stands in bundle.json."""
    rows = [(key, value) for key, value in _flatten("", details) if key != "name" and not key.startswith("decoding.")]
    return ["## Measured", _table(("what", "value"), rows)] if rows else []


def _flatten(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested values as rows: `quality.0.value`, and so on."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flatten(f"{key}.{name}" if key else str(name), part)
    elif isinstance(value, list | tuple) and any(isinstance(part, Mapping | list | tuple) for part in value):
        for index, part in enumerate(value):
            yield from _flatten(f"{key}.{index}", part)
    elif isinstance(value, list | tuple):
        yield key, ", ".join(_shown(part) for part in value)
    else:
        yield key, _shown(value)


def _shown(value: Any) -> str:
    """One value: floats with four figures."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: Any) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(cell: Any) -> str:
    """Text that cannot break out of its line or cell, or become HTML."""
    text = " ".join(str(cell).split())
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
