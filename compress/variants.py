"""Runs beside a run: other settings behind the same teacher and signals, which are linked and not made again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distill.recipe import parse
from distill.steps import Run

SHARED = ("teacher", "signals")


def variant(opened: Run, name: str, changes: Mapping[str, Mapping[str, Any]]) -> Run:
    """A run in the folder `name` below another one, with `changes` to sections of its recipe.

    Raises:
        RecipeError: the changed recipe does not fit together.
    """
    folder = opened.folder / name
    for part in SHARED:
        if not (folder / part).is_dir():
            shutil.copytree(opened.folder / part, folder / part, copy_function=os.link)
    sections = opened.recipe.model_dump(mode="json", exclude_defaults=True)
    changed = {key: {**(sections.get(key) or {}), **values} for key, values in changes.items()}
    return replace(opened, folder=folder, recipe=parse({**sections, **changed}, name))
