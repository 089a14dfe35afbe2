"""The `distill` command: teach, label, student, evaluate."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from distill.command import HELP, RECIPE, call, in_run, options, recipe_options, show

if TYPE_CHECKING:
    from distill.steps import Manifest, Run

ELSEWHERE = {"evaluate": "bench.cli"}
"""Commands that judge what later rooms make: named here and not imported, so that no arrow runs back."""


class _Commands(click.Group):
    """The learning commands, and those that live elsewhere."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return [*super().list_commands(ctx), *ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name in ELSEWHERE:
            return cast(click.Command, getattr(importlib.import_module(ELSEWHERE[cmd_name]), cmd_name))
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings=HELP)
@click.version_option(package_name="potstill")
def distill() -> None:
    """Teach a large model, write down what it says, and distil a small one from it.

    \b
    The three steps of a recipe, in order:
      distill teach recipe.yaml      fine-tunes the teacher        -> runs/NAME/teacher
      distill label recipe.yaml      writes the teacher's logits   -> runs/NAME/signals
      distill student recipe.yaml    distils the student           -> runs/NAME/student
    `compress run recipe.yaml` does these and all that follows.
    """


def _one_step(recipe: Path, found: dict[str, Any], name: str) -> None:
    """Run one learning step and print what it made."""
    chosen = options(**found)

    def work(opened: Run) -> Manifest:
        from distill import run, steps

        step, make = steps.STEPS[name]
        if chosen.dry_run:
            return {"step": name, "state": "up to date" if run.is_done(step(opened)) else "would run"}
        return make(opened)

    result = in_run(recipe, chosen, work)
    show(result, chosen.as_json, _summary(name, result))


def _summary(name: str, result: Any) -> str:
    """A step's result for people."""
    if "state" in result:
        return f"{name}: {result['state']}"
    facts = ", ".join(f"{key} {value}" for key, value in result.get("result", {}).items() if value is not None)
    return f"{name}: done in {result.get('seconds', 0):.0f} s ({facts})"


def _step_command(name: str, text: str) -> Callable[..., None]:
    """A command for one learning step."""

    @distill.command(name, help=text)
    @RECIPE
    @recipe_options
    def command(recipe: Path, **found: Any) -> None:
        _one_step(recipe, found, name)

    return command


_step_command("teach", "Fine-tune the recipe's teacher; goes on where an earlier call was cut off.")
_step_command("label", "Write the teacher's logits for all training examples, once.")
_step_command("student", "Build the student and distil it from the stored logits.")


def main() -> None:
    """Run the command line."""
    call(distill)
