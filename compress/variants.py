"""Runs beside a run: other settings behind the same teacher and signals, which are linked and not made again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distill.recipe import parse
from distill.steps import Run

Changes = Mapping[str, Mapping[str, Any] | None]
SHARED = ("teacher", "signals")


def variant(opened: Run, name: str, changes: Changes) -> Run:
    """A run in the folder `name` below another one, with `changes` to keys of its recipe's sections; None: no section.

    Raises:
        RecipeError: the changed recipe does not fit together.
    """
    folder = opened.folder / name
    for part in SHARED:
        if not (folder / part).is_dir():
            shutil.copytree(opened.folder / part, folder / part, copy_function=os.link)
    sections = opened.recipe.model_dump(mode="json", exclude_defaults=True)
    changed = {
        key: None if values is None else {**(sections.get(key) or {}), **values} for key, values in changes.items()
    }
    return replace(opened, folder=folder, recipe=parse({**sections, **changed}, name))
