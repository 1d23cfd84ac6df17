"""`forgetbench show`: the summary of a run or a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from forgetbench.core.errors import UserError
from forgetbench.core.shell import argument
from forgetbench.runs.address import resolve
from forgetbench.runs.courses import STRATEGIES
from forgetbench.runs.courses import TABLE as COURSE
from forgetbench.runs.engines import check_one_engine
from forgetbench.runs.guard import ending_of, endings
from forgetbench.runs.stored import StoredRun, read_table
from forgetbench.runs.subject import DRIFT
from forgetbench.tables.scores import MATRIX_COLUMNS, SCORE_COLUMNS
from forgetbench.terminal import audit_table, matrix_table, sweep_table, training_lines
from forgetbench.terminal.console import console, say
from forgetbench.terminal.drift import drift_line
from forgetbench.terminal.guard import ending_line
from forgetbench.terminal.plain import plain_rows, to_json, to_tsv
from forgetbench.terminal.strategies import course_table, strategy_table
from forgetbench.terminal.wording import first_decoding


def show(path: Path, as_json: bool) -> None:
    """The summary of a run or a sweep: a table in a terminal, tab-separated rows in a pipe, JSON if asked for.

    Raises:
        UserError: there is nothing to show.
    """
    runs = resolve(path).whole().runs
    check_one_engine((run for run in runs if not run.scores.empty), "`forgetbench show` of one run tells its own.")
    scores, matrix = (
        pd.concat([table for table in tables if not table.empty] or [pd.DataFrame(columns=columns)], ignore_index=True)
        for tables, columns in (
            ([run.scores for run in runs], SCORE_COLUMNS),
            ([run.matrix for run in runs], MATRIX_COLUMNS),
        )
    )
    if scores.empty and (as_json or not console.is_terminal):
        raise UserError(f"{path} has no scores yet: forgetbench eval-matrix {argument('run', path)}")
    if as_json or not console.is_terminal:
        rows = plain_rows(matrix, scores)
        sys.stdout.write(to_json(rows) if as_json else to_tsv(rows))
        return
    _say_endings(runs)
    if scores.empty:
        _show_unscored(runs)
    elif len(runs) == 1:
        if (continual := runs[0].folder / COURSE).is_file():
            console.print(course_table(read_table(continual)))
        console.print(matrix_table(scores, matrix))
        if line := drift_line(runs[0].table(DRIFT)):
            console.print(line, highlight=False)
    else:
        if (strategies := path / STRATEGIES).is_file():
            console.print(strategy_table(read_table(strategies)))
        notes = endings(run.folder for run in runs)
        console.print(sweep_table(matrix, scores, first_decoding(matrix["decoding"]) or "choice", notes))
        if waiting := [run.name for run in runs if run.scores.empty]:
            say(f"not scored yet: {', '.join(waiting)}")


def _say_endings(runs: Sequence[StoredRun]) -> None:
    """How runs ended that were held to a budget of forgetting."""
    for run in runs:
        if found := ending_of(run.folder):
            say(ending_line(run.name, found))


def _show_unscored(runs: Sequence[StoredRun]) -> None:
    for run in runs:
        if run.run:
            console.print(audit_table(run.run.audit))
        console.print(training_lines(read_table(run.folder / "train.csv")))
        say(f"{run.folder} has no scores yet: forgetbench eval-matrix {argument('run', run.folder)}")
