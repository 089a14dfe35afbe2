"""What people do with a bundle on the command line: check it, and ask it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from distill.command import show

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--provider", default="cpu", show_default=True, help="cpu, cuda or tensorrt.")
def verify(bundle: Path, provider: str) -> None:
    """Check every file of BUNDLE against its sha256, open it, and let it answer once."""
    from export.runtime import verify_bundle

    found = verify_bundle(bundle, provider=provider)
    click.echo(f"{bundle}: whole and answers ({len(found.bundle.files)} files, bundle id {found.bundle_id})")


@click.command()
@click.argument("bundle", type=FOLDER)
@click.argument("texts", nargs=-1)
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads (default: onnxruntime's choice).")
@click.option("--provider", default="cpu", show_default=True, help="cpu, cuda or tensorrt.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def predict(bundle: Path, texts: tuple[str, ...], threads: int | None, provider: str, as_json: bool) -> None:
    """Answer TEXTS, or the lines of stdin; for pairs, the two texts of a line are parted by a tab."""
    from compress.predict import answers, in_words

    lines = texts or (line.decode("utf-8", "replace").rstrip("\r\n") for line in sys.stdin.buffer)
    for text, answer in answers(bundle, lines, threads, provider):
        found, line = asdict(answer), in_words(answer, text)
        show(found, False, json.dumps(found, ensure_ascii=False) if as_json else line)
    sys.stdout.flush()
