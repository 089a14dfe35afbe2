"""The folders a run makes, in order: all that a plan needs to know before a run has begun."""

from __future__ import annotations

from distill.recipe import Recipe


def checkpoints(recipe: Recipe) -> tuple[str, ...]:
    """The models that a recipe trains, in order; the last one is exported."""
    pruned = ("pruned",) if recipe.prune else ()
    factorised = ("factorised",) if recipe.factorise else ()
    return ("teacher", "student", *pruned, *factorised)


def folders(recipe: Recipe) -> tuple[str, ...]:
    """What `compress run` makes of a recipe, in order."""
    teacher, *smaller = checkpoints(recipe)
    return (teacher, "signals", *smaller, "teacher-fp32", "fp32", "bundle", "report")


def fresh_plan(recipe: Recipe) -> dict[str, str]:
    """The plan of a run that has not begun: nothing is read or fetched for it."""
    return dict.fromkeys(folders(recipe), "to do")
