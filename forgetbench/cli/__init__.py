"""The `forgetbench` command. Heavy imports are inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from forgetbench import __version__
from forgetbench.cli.datasets import data
from forgetbench.cli.models import models
from forgetbench.cli.shared import Cfg, Command, Commands, Folder, Json, Overrides, print_if
from forgetbench.core.confidence import ALPHA, POWER
from forgetbench.core.errors import BAD_INPUT
from forgetbench.core.processes import leave_process_group
from forgetbench.core.streams import accept_all_letters, guard_streams

_ADDRESS = (
    "A run's folder (its last checkpoint), a checkpoint in it (<run>/checkpoints/step_000120, or .../base), or the "
    "seeds of a recipe with a * in quotes."
)
_ONE_ADDRESS = "A run's folder (its last checkpoint), or a checkpoint in it: <run>/checkpoints/step_000120."
_POINTS = [1.0, 2.0, 5.0]

app = typer.Typer(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")
app.add_typer(models, name="models")


def main() -> None:
    """Entry point of the `forgetbench` script."""
    accept_all_letters()
    guard_streams()
    _check_encoding(sys.argv[1:])
    try:
        app(prog_name="forgetbench")
    except SystemExit as ended:
        if not ended.code:
            leave_process_group()
        raise


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuse arguments that Python could not decode: no file could store such a text."""
    if broken := [argument for argument in arguments if any("\ud800" <= letter <= "\udfff" for letter in argument)]:
        printable = broken[0].encode("ascii", "backslashreplace").decode("ascii")
        sys.stderr.write(
            f"{printable} cannot be decoded: its bytes are not in the encoding of this terminal's locale. Set "
            "PYTHONUTF8=1, or rename the file.\n"
        )
        raise SystemExit(BAD_INPUT)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[  # listed here; `Commands` takes it wherever it stands
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand behind the command, too.")
    ] = False,
) -> None:
    """Measure catastrophic forgetting of fine-tuned multimodal models on a 2x2 matrix of text and image shift.

    Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command(cls=Command)
def finetune(overrides: Overrides, cfg: Cfg = False) -> None:
    """Train one recipe on one target set; checkpoints land in outputs/<name>/."""
    from forgetbench import api, config

    print_if(cfg, config.FinetuneConfig, overrides)
    api.finetune(overrides)


@app.command("eval-matrix", cls=Command)
def eval_matrix(overrides: Overrides, cfg: Cfg = False) -> None:
    """Ask every checkpoint of a run, or the base model, every dataset of a matrix, and score the answers."""
    from forgetbench import api, config

    print_if(cfg, config.EvalMatrixConfig, overrides)
    api.eval_matrix(overrides)


@app.command(cls=Command)
def score(
    overrides: Overrides,
    partial: Annotated[
        bool, typer.Option("--partial", help="Score what is there, and say what is not; the same as partial=true.")
    ] = False,
    cfg: Cfg = False,
) -> None:
    """Make the tables from stored predictions, or from predictions made elsewhere; no model is needed."""
    from forgetbench import compose, config
    from forgetbench.commands import score
    from forgetbench.core import processes

    overrides = [*overrides, *["partial=true"] * partial]
    print_if(cfg, config.ScoreConfig, overrides)
    processes.require_single_process("score")
    compose.run(config.ScoreConfig, overrides, score.score)


@app.command(cls=Command)
def sweep(overrides: Overrides, cfg: Cfg = False) -> None:
    """Train and score every point of a grid, or search for the best; with no overrides, the demo's four recipes."""
    from forgetbench import api, config

    print_if(cfg, config.SweepConfig, overrides)
    if api.sweep(overrides).failed:
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
    from forgetbench import api
    from forgetbench.commands import report

    if watch:
        report.watch(path, report.Options(flips, open_page))
    else:
        api.report(path, flips=flips, open=open_page)


@app.command(cls=Command)
def export(
    path: Annotated[Path, typer.Argument(metavar="PATH", help=_ONE_ADDRESS, show_default=False)],
    to: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; must not exist yet.", show_default=False)],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="A PEFT adapter instead of the whole model; for runs that trained one.")
    ] = False,
    model_path: Annotated[
        str, typer.Option(help="Where the run's base is now, if it has moved.", show_default=False)
    ] = "",
) -> None:
    """Write a checkpoint as a folder that transformers (or peft) loads, with a model card that holds the matrix."""
    from forgetbench.commands import export

    export.export(path, to, adapter, model_path)


@app.command("import", cls=Command)
def import_run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Checkpoints of another trainer.", show_default=False)
    ],
    overrides: Overrides,
    cfg: Cfg = False,
) -> None:
    """Make a run of checkpoints that LLaMA-Factory, TRL or transformers' Trainer wrote; score it like any other."""
    from forgetbench import compose, config
    from forgetbench.commands import import_

    print_if(cfg, config.FinetuneConfig, overrides)
    compose.run(config.FinetuneConfig, overrides, import_.importer(folder))


@app.command(cls=Command)
def show(path: Folder, as_json: Json = False) -> None:
    """Show the summary of a run or a sweep; in a pipe as tab-separated rows."""
    from forgetbench import api
    from forgetbench.commands import show

    show.print_stored_tables(api.show(path).stored, as_json)


@app.command(cls=Command)
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=_ADDRESS)],
    second: Annotated[str | None, typer.Argument(metavar="B", help="The same; without it, A beside its base.")] = None,
    margin: Annotated[float, typer.Option(help="Points within which a change counts as none (TOST).")] = 2.0,
    decoding: Annotated[str | None, typer.Option(help="Only this one: choice, greedy, sample.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Hold A against itself as this engine scored it, such as 'vllm 0.32.0'.")
    ] = None,
    across_engines: Annotated[
        bool, typer.Option("--across-engines", help="Compare two sides that different engines scored.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare two checkpoints, runs or recipes on the same items: datasets, quadrants, interaction, equivalence."""
    from forgetbench import api
    from forgetbench.commands import compare

    comparison = api.compare(
        first, second, margin=margin, decoding=decoding, engine=engine, across_engines=across_engines
    )
    compare.print_comparison(comparison.stored, as_json)


@app.command(cls=Command)
def power(
    path: Folder,
    points: Annotated[list[float], typer.Option(help="A change to find, in points; may be given again.")] = _POINTS,
    wanted: Annotated[float, typer.Option("--power", help="Probability to find it.")] = POWER,
    alpha: Annotated[float, typer.Option(help="Level of the two-sided test.")] = ALPHA,
    as_json: Json = False,
) -> None:
    """Tell how many items every dataset needs to find a change of so many points, from the variance observed in it."""
    from forgetbench.commands import power

    power.power(path, points, wanted, alpha, as_json)


@app.command(cls=Command)
def doctor(as_json: Json = False) -> None:
    """Say what works on this machine: versions, devices, disk, the Hub, and a self-test of ten seconds."""
    import tempfile

    from forgetbench import compose, config
    from forgetbench.commands import doctor

    with tempfile.TemporaryDirectory(prefix="forgetbench-") as folder:
        settings = compose.compose(config.SweepConfig, doctor.self_test_overrides(folder))
        if not doctor.doctor(settings, as_json):
            raise typer.Exit(1)
