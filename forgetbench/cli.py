"""The `forgetbench` command. Heavy imports are inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
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
    from forgetbench import config, experiment, launch, processes

    _print_if(cfg, config.SweepConfig, overrides)
    processes.alone("sweep")
    failed = launch.sweep(overrides, experiment.sweep_point, experiment.summarise_sweep)
    for point in failed:
        sys.stderr.write(f"Failed: {point.folder}: {point.cause}\n  traceback: {point.folder / launch.ERROR_FILE}\n")
    if failed:
        raise typer.Exit(1)


@data.command("list", cls=Command)
def data_list(overrides: Overrides, cfg: Cfg = False) -> None:
    """List every dataset that can be named: image domains, text tasks, sizes."""
    from forgetbench import config, inspection, launch

    _print_if(cfg, config.FinetuneConfig, overrides)
    inspection.data_list(launch.compose(config.FinetuneConfig, overrides))


@data.command("show", cls=Command)
def data_show(words: Words, cfg: Cfg = False) -> None:
    """Show datasets: manifest, sizes, a few items; with no name, the target set."""
    from forgetbench import config, inspection, launch

    names, overrides = _split(words)
    _print_if(cfg, config.FinetuneConfig, overrides)
    composed = launch.compose(config.FinetuneConfig, overrides)
    inspection.data_show(composed, names or [stage.set for stage in composed.data.stages])


@data.command("check", cls=Command)
def data_check(words: Words, cfg: Cfg = False) -> None:
    """Verify datasets against their manifests: files, digests, sizes, items; with no name, all of them."""
    from forgetbench import config, inspection, launch

    names, overrides = _split(words)
    _print_if(cfg, config.FinetuneConfig, overrides)
    if not inspection.data_check(launch.compose(config.FinetuneConfig, overrides), names):
        raise typer.Exit(1)


@app.command(cls=Command)
def models(words: Words, cfg: Cfg = False) -> None:
    """List a model's parts and their parameter counts; with no name, the embedded base."""
    from forgetbench import config, inspection, launch

    names, overrides = _split(words)
    choices = [[*overrides, f"model={name}"] for name in names] or [overrides]
    _print_if(cfg, config.FinetuneConfig, choices[0])
    inspection.models([launch.compose(config.FinetuneConfig, choice) for choice in choices])


def _print_if(cfg: bool, kind: type[Any], overrides: Sequence[str]) -> None:
    if cfg:
        from forgetbench import launch

        typer.echo(launch.composed_yaml(kind, overrides), nl=False)
        raise typer.Exit


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Bare names, and overrides."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]
