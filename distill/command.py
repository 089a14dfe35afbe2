"""What all commands share: options, logging, exit codes, and errors without tracebacks. Imports nothing heavy."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from distill.errors import MissingExtraError, PotstillError
from distill.launch import together

if TYPE_CHECKING:
    from distill.recipe import Recipe
    from distill.steps import Run

Command = TypeVar("Command", bound=Callable[..., Any])
RUNTIME = ("onnxruntime",)
OWN = ("distill", "export", "bench", "compress")
RECIPE = click.argument("recipe", type=click.Path(path_type=Path))
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True)
class Options:
    """The options that every recipe command takes."""

    output: Path | None
    overrides: tuple[str, ...]
    dry_run: bool
    as_json: bool
    quiet: bool
    force: bool


def recipe_options(command: Command) -> Command:
    """Give a command -o, --set, --dry-run, --json, --force, -v and -q."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write to (default: runs/NAME)."),
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe: --set student.layers=2"
    ),
    click.option("--dry-run", is_flag=True, help="Say what would run; write nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("--force", is_flag=True, help="Redo what does not fit the recipe; the old result stays until then."),
    click.option("-v", "--verbose", is_flag=True, help="More on stderr."),
    click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr."),
)


def options(
    output: Path | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    force: bool,
    verbose: bool,
    quiet: bool,
) -> Options:
    """Gather the options and set up logging."""
    set_up_logging(verbose, quiet)
    return Options(output, overrides, dry_run, as_json, quiet, force)


def set_up_logging(verbose: bool = False, quiet: bool = False) -> None:
    """Log lines go to stderr; other libraries' only when asked for."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO if verbose else logging.ERROR)
    logging.getLogger("potstill").setLevel(level)
    remarks = () if verbose else ("torchao", "torch.utils._pytree")  # made where neural-compressor is installed
    for name in remarks:
        logging.getLogger(name).setLevel(logging.ERROR)


def load_recipe(path: Path, chosen: Options) -> Recipe:
    """The recipe with its overrides."""
    from distill.recipe import load

    return load(path, chosen.overrides)


def run_folder(recipe: Recipe, chosen: Options) -> Path:
    """Where the run lives."""
    return chosen.output or Path("runs") / recipe.name


def in_run(path: Path, chosen: Options, work: Callable[[Run], Any]) -> Any:
    """Open the recipe's run under its lock, with progress, and do `work` in it; with several processes in each."""
    recipe = load_recipe(path, chosen)
    program = str(click.get_current_context().find_root().command.name)
    with together(1 if chosen.dry_run else recipe.processes, program):
        return _in_run(recipe, path, chosen, work)


def _in_run(recipe: Recipe, path: Path, chosen: Options, work: Callable[[Run], Any]) -> Any:
    """What each process does."""
    quiet_libraries()
    from functools import partial

    from distill import processes
    from distill.progress import Bars
    from distill.run import lock
    from distill.sources import default_cache
    from distill.steps import open_run, write_recipe

    folder = run_folder(recipe, chosen)
    first = processes.join()
    with Bars(quiet=chosen.quiet or not first) as bars:
        enter = partial(open_run, recipe, folder, path.parent, default_cache(), chosen.force, bars)
        if not first:
            work(enter())
            processes.leave()
            raise click.exceptions.Exit(0)  # the first process tells the result
        if chosen.dry_run:
            return work(enter())
        with lock(folder, chosen.force):
            opened = enter()
            for warning in opened.dataset.warnings:
                logging.getLogger("potstill").warning("data: %s", warning)
            result = work(opened)
            write_recipe(opened)
            processes.leave()
            return result


def quiet_libraries() -> None:
    """Keep other libraries' bars and advice off the screen."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def show(value: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print a result: JSON for programs, `text` for people."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False) if as_json else text)


def call(group: click.Command) -> None:
    """Run a command line and leave with its exit code; errors are one clear message on stderr."""
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(_exit_code(group))


def _stop(*_: object) -> None:
    """SIGTERM ends a command like Ctrl-C."""
    raise KeyboardInterrupt


def _exit_code(group: click.Command) -> int:
    """Run, and turn whatever is raised into an exit code."""
    try:
        group.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PotstillError as error:
        return _say(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _not_installed(error)
    except OSError as error:
        return _failed(error)
    except SystemExit:  # click's answer when whoever read our output has left, which is no failure of ours
        return 0
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted; run the same command again to go on", 130)
    return 0


def _not_installed(error: ModuleNotFoundError) -> int:
    """Name the extra; a module of our own that is missing is our mistake, with its traceback."""
    if (error.name or "").partition(".")[0] in OWN:
        raise error
    missing = missing_extra(error)
    return _say(str(missing), missing.exit_code)


def _failed(error: OSError) -> int:
    """The system refused something: one line with the file's name."""
    where = f": {error.filename}" if error.filename else ""
    return _say(f"{error.strerror or error}{where}", 1)


def _say(message: str, code: int) -> int:
    """Print an error."""
    click.echo(f"error: {message}", err=True)
    return code


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError:
    """Which extra brings the module that is not installed."""
    module = (error.name or "").partition(".")[0]
    extra = "cpu" if module in RUNTIME else "train,cpu"
    return MissingExtraError(f"{module or error} is not installed: this needs extras: pip install 'potstill[{extra}]'")
