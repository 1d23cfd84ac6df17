"""The `forgetbench` command. Heavy imports are inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from forgetbench import __version__
from forgetbench.errors import UserError
from forgetbench.help import epilog

BAD_INPUT = 2
INTERRUPTED = 130
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}


class Commands(TyperGroup):
    """Commands whose user errors end in one plain message and exit code 2; bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            sys.stderr.write(f"{error}\n")
            raise typer.Exit(BAD_INPUT) from None
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            sys.stderr.write(
                f"{error}\nNothing finished is lost: make room, or choose another outputs=..., and run again.\n"
            )
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted. The same command resumes where it stopped.\n")
            raise typer.Exit(INTERRUPTED) from None


class Command(TyperCommand):
    """A command whose help ends in its examples, keys and config groups."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the epilog as it is; Click would fill its lines into paragraphs."""
        formatter.write("\n" + epilog(ctx.command_path.partition(" ")[2]))


Overrides = Annotated[
    list[str],
    typer.Argument(metavar="[KEY=VALUE]...", help="Hydra overrides.", default_factory=list, show_default=False),
]
Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME|KEY=VALUE]...",
        help="Names, Hydra overrides.",
        default_factory=list,
        show_default=False,
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a run or a sweep.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
_ADDRESS = (
    "A run's folder (its last checkpoint), a checkpoint in it (<run>/checkpoints/step_000120, or .../base), or the "
    "seeds of a recipe with a * in quotes."
)
_POINTS = [1.0, 2.0, 5.0]
Cfg = Annotated[bool, typer.Option("--cfg", help="Print the composed config and exit.")]

app = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
data = typer.Typer(rich_markup_mode=None, help="List, show and check datasets.")
app.add_typer(data, name="data")


def main() -> None:
    """Entry point of the `forgetbench` script."""
    app(prog_name="forgetbench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure catastrophic forgetting of fine-tuned multimodal models on a 2x2 matrix of text and image shift."""


@app.command(cls=Command)
def finetune(overrides: Overrides, cfg: Cfg = False) -> None:
    """Train one recipe on one target set; checkpoints land in outputs/<name>/."""
    from forgetbench import config, experiment, launch

    _print_if(cfg, config.FinetuneConfig, overrides)
    launch.run(config.FinetuneConfig, overrides, experiment.finetune)


@app.command("eval-matrix", cls=Command)
def eval_matrix(overrides: Overrides, cfg: Cfg = False) -> None:
    """Ask every checkpoint of a run, or the base model, every dataset of a matrix, and score the answers."""
    from forgetbench import config, experiment, launch

    _print_if(cfg, config.EvalMatrixConfig, overrides)
    launch.run(config.EvalMatrixConfig, overrides, experiment.eval_matrix)


@app.command(cls=Command)
def score(overrides: Overrides, cfg: Cfg = False) -> None:
    """Make the tables from stored predictions, or from predictions made elsewhere; no model is needed."""
    from forgetbench import config, launch, processes, rescore

    _print_if(cfg, config.ScoreConfig, overrides)
    processes.alone("score")
    launch.run(config.ScoreConfig, overrides, rescore.score)


@app.command(cls=Command)
def sweep(overrides: Overrides, cfg: Cfg = False) -> None:
    """Train and score every point of a grid; with no overrides, the demo's four recipes."""
    from forgetbench import config, experiment, launch, processes, sweep_tables

    _print_if(cfg, config.SweepConfig, overrides)
    processes.alone("sweep")
    failed = launch.sweep(overrides, experiment.sweep_point, sweep_tables.summarise_sweep)
    for point in failed:
        sys.stderr.write(f"Failed: {point.folder}: {point.cause}\n  traceback: {point.folder / launch.ERROR_FILE}\n")
    if failed:
        raise typer.Exit(1)


@app.command(cls=Command)
def report(
    path: Folder,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Make it again whenever a table changes, until Ctrl-C.")
    ] = False,
    flips: Annotated[int, typer.Option(help="Items in the flip explorer, at most.", min=0)] = 600,
) -> None:
    """Make report.html, one page that opens from disk, and its figures as SVG and PNG, in the same folder."""
    from forgetbench import report

    report.make(path, report.Options(flips, watch, open_page))


@app.command(cls=Command)
def show(path: Folder, as_json: Json = False) -> None:
    """Show the summary of a run or a sweep; in a pipe as tab-separated rows."""
    from forgetbench import readout

    readout.show(path, as_json)


@app.command(cls=Command)
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=_ADDRESS)],
    second: Annotated[str | None, typer.Argument(metavar="B", help="The same; without it, A beside its base.")] = None,
    margin: Annotated[float, typer.Option(help="Points within which a change counts as none (TOST).")] = 2.0,
    decoding: Annotated[str | None, typer.Option(help="Only this one: choice, greedy, sample.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two checkpoints, runs or recipes on the same items: datasets, quadrants, interaction, equivalence."""
    from forgetbench import readout

    readout.compare_checkpoints([first] if second is None else [first, second], margin, decoding, as_json)


@app.command(cls=Command)
def power(
    path: Folder,
    points: Annotated[list[float], typer.Option(help="A change to find, in points; may be given again.")] = _POINTS,
    wanted: Annotated[float, typer.Option("--power", help="Probability to find it.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Level of the two-sided test.")] = 0.05,
    as_json: Json = False,
) -> None:
    """Tell how many items every dataset needs to find a change of so many points, from the variance observed in it."""
    from forgetbench import readout

    readout.power(path, points, wanted, alpha, as_json)


@data.command("list", cls=Command)
def data_list(overrides: Overrides, cfg: Cfg = False, as_json: Json = False) -> None:
    """List every dataset that can be named: image domains, text tasks, sizes."""
    from forgetbench import config, inspection, launch

    _print_if(cfg, config.FinetuneConfig, overrides)
    inspection.data_list(launch.compose(config.FinetuneConfig, overrides), as_json)


@data.command("show", cls=Command)
def data_show(words: Words, cfg: Cfg = False) -> None:
    """Show datasets: manifest, sizes, a few items; with no name, the target set."""
    from forgetbench import config, inspection, launch

    names, overrides = _split(words)
    _print_if(cfg, config.FinetuneConfig, overrides)
    composed = launch.compose(config.FinetuneConfig, overrides)
    inspection.data_show(composed, names or [stage.set for stage in composed.data.stages])


@data.command("check", cls=Command)
def data_check(words: Words, cfg: Cfg = False, as_json: Json = False) -> None:
    """Verify datasets against their manifests: files, digests, sizes, items; with no name, all of them."""
    from forgetbench import config, inspection, launch

    names, overrides = _split(words)
    _print_if(cfg, config.FinetuneConfig, overrides)
    if not inspection.data_check(launch.compose(config.FinetuneConfig, overrides), names, as_json):
        raise typer.Exit(1)


@app.command(cls=Command)
def models(words: Words, cfg: Cfg = False, as_json: Json = False) -> None:
    """List a model's parts and their parameter counts; with no name, the embedded base."""
    from forgetbench import config, inspection, launch

    names, overrides = _split(words)
    choices = [[*overrides, f"model={name}"] for name in names] or [overrides]
    _print_if(cfg, config.FinetuneConfig, choices[0])
    inspection.models([launch.compose(config.FinetuneConfig, choice) for choice in choices], as_json)


def _print_if(cfg: bool, kind: type[Any], overrides: Sequence[str]) -> None:
    if cfg:
        from forgetbench import launch

        typer.echo(launch.composed_yaml(kind, overrides), nl=False)
        raise typer.Exit


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Bare names, and overrides."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]
