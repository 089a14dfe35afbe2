"""The `compress` command: the whole run, its single steps, and what people do with a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import layers
from compress.cli_bundle import predict, scan, verify
from distill.command import (
    HELP,
    RECIPE,
    Options,
    call,
    in_run,
    load_recipe,
    options,
    recipe_options,
    run_folder,
    set_up_logging,
    show,
)
from distill.errors import RecipeError

if TYPE_CHECKING:
    from distill.steps import Run

FOLDER = click.Path(path_type=Path)
DEVICE = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    help="What runs the bundle: int8 for cpu and tensorrt, fp16 for cuda (the recipe's quantize.device).",
)


@click.group(context_settings=HELP)
@click.version_option(package_name="potstill")
def compress() -> None:
    """From labelled text to a small, tested ONNX bundle.

    \b
    Start with nothing but a file:
      compress init reviews.csv -o recipe.yaml
      compress run recipe.yaml
      compress predict runs/reviews/bundle "a gorgeous film"
    """


@compress.command()
@click.argument("source", type=FOLDER)
@click.option("-o", "--output", type=FOLDER, default=Path("recipe.yaml"), show_default=True, help="Recipe to write.")
@click.option("--text", help="Column with the text (default: guessed).")
@click.option("--pair", help="Column with the second text, for pairs.")
@click.option("--label", help="Column with the label (default: guessed).")
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
def init(source: Path, output: Path, text: str | None, pair: str | None, label: str | None, force: bool) -> None:
    """Look at SOURCE (csv, tsv, jsonl, parquet) and write a commented recipe that runs."""
    set_up_logging()
    if output.exists() and not force:
        raise RecipeError(f"{output} exists already; choose another -o, or --force to replace it")
    from compress.init import init_recipe
    from distill.files import write_text

    proposal = init_recipe(source, output.parent, text=text, pair=pair, label=label)
    write_text(output, proposal.text)
    for warning in proposal.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"wrote {output}; look it over, then: compress run {output}")


@compress.command("run")
@RECIPE
@DEVICE
@recipe_options
def run_command(recipe: Path, device: str | None, **found: Any) -> None:
    """Run every step of RECIPE: teach, label, student, prune, factorise, export, quantize, bench.

    Steps that are done are skipped, a step that was cut off goes on where it was. The report is printed at the end and
    kept in runs/NAME/report.
    """
    chosen = _options(device, found)
    folder = run_folder(load_recipe(recipe, chosen), chosen)
    if chosen.dry_run:
        _print_plan(recipe, folder, chosen)
        return
    from compress.pipeline import run_all

    report = in_run(recipe, chosen, run_all)
    click.echo((report / ("report.json" if chosen.as_json else "report.md")).read_text(encoding="utf-8"))


def _options(device: str | None, found: dict[str, Any]) -> Options:
    """The options of a command that takes --device, which is a setting of the recipe."""
    if device is not None:
        found["overrides"] += (f"quantize.device={device}",)
    return options(**found)


def _print_plan(recipe: Path, folder: Path, chosen: Any) -> None:
    """Say what would run. A run that has not begun is planned without touching its data."""
    if any(folder.glob("*/run.json")):
        from compress.pipeline import plan

        found = in_run(recipe, chosen, plan)
    else:
        from compress.order import fresh_plan

        found = fresh_plan(load_recipe(recipe, chosen))
    show(found, chosen.as_json, "\n".join(f"{folder / name}: {state}" for name, state in found.items()))


def _in_recipe(
    recipe: Path, found: dict[str, Any], work: Callable[[Run], Any], name: str, device: str | None = None
) -> None:
    """One step of a recipe's run, and one line about it."""
    chosen = _options(device, found)
    if chosen.dry_run:
        raise RecipeError("--dry-run goes with `compress run`, which plans all steps")
    result = in_run(recipe, chosen, work)
    show(result, chosen.as_json, f"{name}: done in {result['seconds']:.0f} s")


@compress.command()
@RECIPE
@recipe_options
def prune(recipe: Path, **found: Any) -> None:
    """Remove layers, heads and neurons from RECIPE's student as its `prune` section says, and let it recover.

    \b
    --set prune.neurons=0.5               half of the feed-forward neurons
    --set prune.layers=3                  three layers stay, evenly spaced
    --set prune.speedup=2                 as much as makes its fp32 graph twice as fast
    --set prune.importance=fisher         what is worth keeping, by Fisher information
    """

    def work(opened: Run) -> Any:
        from compress import steps

        if opened.recipe.prune is None:
            raise RecipeError("the recipe has no `prune` section; for example --set prune.neurons=0.5")
        return steps.run_prune(opened, opened.recipe.prune)

    _in_recipe(recipe, found, work, "prune")


@compress.command()
@RECIPE
@recipe_options
def factorise(recipe: Path, **found: Any) -> None:
    """Put the linear maps of RECIPE's student, pruned or not, in two factors of low rank, and let it recover.

    At rank 128 a map of 384 x 1536 numbers becomes two of 384 x 128 and 128 x 1536: 42 % of its numbers. What stays is
    what matters most to the outputs on training rows. Put in factors are both maps of each feed-forward and the one
    after attention; queries, keys and values stay whole.

    \b
    Examples:
      compress factorise recipe.yaml --set factorise.parameters=0.5  # half of the numbers stay
      compress factorise recipe.yaml --set factorise.energy=0.95     # 95 % of each output's energy
    """

    def work(opened: Run) -> Any:
        from compress.low_rank.step import run_factorise

        if opened.recipe.factorise is None:
            raise RecipeError("the recipe has no `factorise` section; for example --set factorise.parameters=0.5")
        return run_factorise(opened, opened.recipe.factorise)

    _in_recipe(recipe, found, work, "factorise")


@compress.command()
@click.argument("model", type=FOLDER)
@click.argument("data", type=FOLDER, nargs=-1, required=True)
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder for the smaller checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Pieces and bytes as one JSON object.")
def vocabulary(model: Path, data: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Keep the pieces of MODEL, a checkpoint's folder, that the texts in DATA use (csv, tsv, jsonl, txt, parquet).

    Every text is divided as before, and what is left answers as before. Every cell of DATA counts as a text.

    \b
    Example:
      compress vocabulary mbart-large-50/ pairs.tsv -o mbart-en-it/
    """
    set_up_logging()
    from compress.vocabulary import prune_folder

    found = prune_folder(model, data, output)
    before, after = found["before"], found["after"]
    pieces, size = (f"{before[key]:,} -> {after[key]:,} {key}" for key in ("pieces", "bytes"))
    show(found, as_json, f"wrote {output}: {pieces}, {size}")


@compress.command()
@click.argument("source", type=FOLDER)
@click.option("--onnx", is_flag=True, help="Write ONNX (the only format there is).")
@click.option("--quantize", "int8", type=click.Choice(["int8"]), help="Quantize in the same go.")
@click.option("--recipe", "data", type=FOLDER, help="Recipe that names the data, when SOURCE is a checkpoint's folder.")
@DEVICE
@recipe_options
def export(source: Path, onnx: bool, int8: str | None, data: Path | None, device: str | None, **found: Any) -> None:
    """Export SOURCE, a recipe or a checkpoint's folder, as a bundle; with --device in the form that suits it.

    \b
    Examples:
      compress export --onnx recipe.yaml
      compress export --onnx --quantize int8 my-model/ --recipe recipe.yaml -o my-bundle
      compress export --onnx --device cuda my-model/ --recipe recipe.yaml -o my-fp16-bundle
    """
    if int8 and device == "cuda":
        from distill.recipe import METHODS

        raise RecipeError(f"--quantize int8 and --device cuda do not go together: {METHODS['cuda'][1]}")
    quantizing = bool(int8 or device)

    def work(opened: Run) -> Any:
        from compress import paths, steps

        steps.run_export(opened, "teacher", "teacher-fp32")
        made = steps.run_export(opened, steps.last_checkpoint(opened), "fp32")
        return paths.quantize_run(opened) if quantizing else made

    if source.is_dir():
        from compress import paths

        chosen = _options(device, found)
        bundle = (paths.quantize_folder if quantizing else paths.export_folder)(source, data, chosen)
        click.echo(f"wrote {bundle.folder} ({bundle.precision})")
    else:
        _in_recipe(source, found, work, "export", device)


@compress.command()
@click.argument("source", type=FOLDER)
@click.option("--recipe", "data", type=FOLDER, help="Recipe that names the data, when SOURCE is a folder.")
@DEVICE
@recipe_options
def quantize(source: Path, data: Path | None, device: str | None, **found: Any) -> None:
    """Quantize SOURCE to int8 under the gate: a recipe's run, an fp32 bundle, or a checkpoint (converted first).

    For CUDA the smaller form is fp16; `--set quantize.methods=[…]` chooses among those of a device.
    """

    def work(opened: Run) -> Any:
        from compress import paths

        return paths.quantize_run(opened)

    if source.is_dir():
        from compress import paths

        bundle = paths.quantize_folder(source, data, _options(device, found))
        click.echo(f"wrote {bundle.folder} ({bundle.precision}): {bundle.details['quantization']['products']}")
    else:
        _in_recipe(source, found, work, "quantize", device)


@compress.command()
@click.argument("sources", type=FOLDER, nargs=-1, required=True)
@click.option("--recipe", "data", type=FOLDER, help="Recipe that names data and settings, when SOURCES are folders.")
@click.option("--against", metavar="ENGINES", help="Other engines in the same rounds: openvino,ctranslate2,optimum.")
@recipe_options
def bench(sources: tuple[Path, ...], data: Path | None, against: str | None, **found: Any) -> None:
    """Measure quality, latency, size and memory: of a recipe's run, or of checkpoints and bundles side by side.

    --against takes the weights of the last checkpoint to other engines, in int8. `make peers` installs these, each in
    an environment of its own; one that is missing is named in the report.
    """
    if against is not None:
        found["overrides"] += (f"bench.against=[{against}]",)

    def work(opened: Run) -> Any:
        from compress import steps

        return steps.run_bench(opened)

    if sources[0].is_dir():
        from compress import paths

        folder = paths.bench_folders(sources, data, options(**found))
        click.echo((folder / "report.md").read_text(encoding="utf-8"))
    else:
        _in_recipe(sources[0], found, work, "bench")


for command in (scan, layers, predict, verify):
    compress.add_command(command)


def main() -> None:
    """Run the command line."""
    call(compress)
