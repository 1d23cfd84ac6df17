"""What Python programs call: the commands as functions, whose results are objects. The command line calls them, too.

Nothing heavy is imported before a function is called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from forgetbench.api.keys import EvalMatrixKeys, FinetuneKeys, SweepKeys
from forgetbench.api.overrides import as_overrides
from forgetbench.api.process import api_function, called_from_python
from forgetbench.api.results import ComparisonResult, ReportResult, RunResult, SweepResult
from forgetbench.core.errors import UserError

if TYPE_CHECKING:
    from forgetbench.config import FinetuneConfig, SweepConfig

__all__ = [
    "ComparisonResult",
    "ReportResult",
    "RunResult",
    "SweepResult",
    "UserError",
    "compare",
    "eval_matrix",
    "finetune",
    "report",
    "show",
    "sweep",
]

Address = str | os.PathLike[str]


@api_function
def finetune(overrides: Sequence[str] = (), /, **keys: Unpack[FinetuneKeys]) -> RunResult:
    """Train one recipe on one target set, as `forgetbench finetune` does; go on where an earlier call stopped.

    Args:
        overrides: as on the command line, such as ["recipe.lr=1e-4", "name=mine"].
        keys: the command's keys as Python values, such as recipe={"lr": 1e-4}.

    Raises:
        UserError: the configuration, the data or the model do not fit; the text is the command's.
    """
    from forgetbench import compose, config
    from forgetbench.commands.finetune import finetune

    def task(settings: FinetuneConfig, folder: Path) -> Path:
        finetune(settings, folder)
        return folder

    return RunResult(compose.run(config.FinetuneConfig, as_overrides(config.FinetuneConfig, overrides, keys), task))


@api_function
def eval_matrix(overrides: Sequence[str] = (), /, **keys: Unpack[EvalMatrixKeys]) -> RunResult:
    """Score every checkpoint of a run, or a base model, on every dataset of a matrix, as `forgetbench eval-matrix`.

    Args:
        overrides: as on the command line, such as ["run=outputs/mine", "matrix=quick"].
        keys: the command's keys as Python values, such as run="outputs/mine", matrix={"limit": 200}.

    Raises:
        UserError: there is no such run, or the data or the model do not fit; the text is the command's.
    """
    from forgetbench import compose, config
    from forgetbench.commands.eval_matrix import eval_matrix

    lines = as_overrides(config.EvalMatrixConfig, overrides, keys)
    return RunResult(compose.run(config.EvalMatrixConfig, lines, eval_matrix))


@api_function
def sweep(overrides: Sequence[str] = (), /, **keys: Unpack[SweepKeys]) -> SweepResult:
    """Train and score every point of a grid, or search, as `forgetbench sweep` does; else the demo's four recipes.

    A point that fails does not stop the others: it is named on standard error and in the result's `failed`.

    Args:
        overrides: as on the command line, such as ["recipe.lr=1e-3,1e-4"].
        keys: the command's keys as Python values; a tuple is a point for each of its values, such as seed=(0, 1, 2).

    Raises:
        UserError: the grid cannot run; the text is the command's.
    """
    from forgetbench import compose, config
    from forgetbench.commands import search
    from forgetbench.commands.sweep import summarise_sweep, sweep_point
    from forgetbench.core import processes

    folders: list[Path] = []

    def summarise(folder: Path, points: Sequence[Path]) -> None:
        folders.append(folder)
        summarise_sweep(folder, points)

    def search_in(points: search.PointRunner, folder: Path) -> None:
        folders.append(folder)
        search.search(points, folder)

    lines = as_overrides(config.SweepConfig, overrides, keys)
    processes.require_single_process("sweep")
    failed = compose.sweep(lines, _silent_point if called_from_python() else sweep_point, summarise, search_in)
    for point in failed:
        state = "Failed" if point.traceback else "Not finished"
        traceback = f"  traceback: {point.traceback}\n" if point.traceback else ""
        sys.stderr.write(f"{state}: {point.folder}: {point.cause}\n{traceback}")
    if any(point.traceback is None for point in failed):
        sys.stderr.write("Nothing finished is lost: the same command goes on with what is not finished.\n")
    return SweepResult(folders[0], tuple(failed))


def _silent_point(settings: SweepConfig, folder: Path) -> float | None:
    """Run a point without printing its tables, for a caller in Python; launchers run it in other processes."""
    from forgetbench.commands.sweep import sweep_point
    from forgetbench.terminal.console import results_returned

    with results_returned():
        return sweep_point(settings, folder)


@api_function
def show(path: Address) -> RunResult | SweepResult:
    """Read the summary of a run or a sweep, as `forgetbench show` shows it.

    Args:
        path: its folder, or a result.

    Raises:
        UserError: there is no run, or a table is damaged; the text is the command's.
    """
    from forgetbench.commands.show import read_stored_tables

    folder = Path(path)
    tables = read_stored_tables(folder)
    return RunResult(folder, _stored=tables) if tables.is_run else SweepResult(folder, _stored=tables)


@api_function
def report(path: Address, *, flips: int = 600, open: bool = False) -> ReportResult:
    """Make report.html and its figures in the folder of a run or a sweep, as `forgetbench report` does.

    Args:
        path: the folder, or a result.
        flips: items in the flip explorer, at most.
        open: show the page in the browser.

    Raises:
        UserError: there is no run, or a table is damaged; the text is the command's.
    """
    from forgetbench.commands.report import Options, make_report

    written = make_report(Path(path), Options(flips, open_page=open))
    return ReportResult(written.page, tuple(written.figures))


@api_function
def compare(
    first: Address,
    second: Address | None = None,
    *,
    margin: float = 2.0,
    decoding: str | None = None,
    engine: str | None = None,
    across_engines: bool = False,
) -> ComparisonResult:
    """Compare two checkpoints, runs or recipes on the same items, as `forgetbench compare` does.

    Args:
        first: a run's folder, a checkpoint in it, the seeds of a recipe with a * in it, or a result.
        second: the same; without it, `first` beside its base.
        margin: points within which a change counts as none.
        decoding: only this one.
        engine: hold `first` against itself as this engine scored it.
        across_engines: compare two sides that different engines scored.

    Raises:
        UserError: an address names nothing scored, or the sides have nothing in common; the text is the command's.
    """
    from forgetbench.commands.compare import Options, compare_checkpoints

    sides = [os.fspath(side) for side in (first, second) if side is not None]
    return ComparisonResult(compare_checkpoints(sides, Options(margin, decoding, engine, across_engines)))
