"""The folders a run makes, in order: all that a plan needs to know before a run has begun."""

from __future__ import annotations

from distill.errors import RecipeError
from distill.recipe import Recipe


def expect_whole(recipe: Recipe) -> None:
    """Refuse a kind of task for which not every step is there yet, before the first one begins.

    Raises:
        RecipeError: naming the steps that are.
    """
    if recipe.task.kind == "translation":
        raise RecipeError(
            "int8's gate and the report do not know translation yet; what works: distill teach, label and student, "
            "then compress export"
        )


def folders(recipe: Recipe) -> tuple[str, ...]:
    """What `compress run` makes of a recipe, in order."""
    pruned = ("pruned",) if recipe.prune else ()
    return ("teacher", "signals", "student", *pruned, "teacher-fp32", "fp32", "bundle", "report")


def fresh_plan(recipe: Recipe) -> dict[str, str]:
    """The plan of a run that has not begun: nothing is read or fetched for it."""
    expect_whole(recipe)
    return dict.fromkeys(folders(recipe), "to do")
