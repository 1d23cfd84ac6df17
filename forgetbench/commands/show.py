"""`forgetbench show`: the summary of a run or a sweep."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import RenderableType

from forgetbench.core.errors import UserError
from forgetbench.core.shell import argument
from forgetbench.runs.address import resolve
from forgetbench.runs.continual import STRATEGIES
from forgetbench.runs.continual import TABLE as COURSE
from forgetbench.runs.engines import check_one_engine
from forgetbench.runs.guard import ending_of, endings
from forgetbench.runs.stored import StoredRun, read_table
from forgetbench.runs.subject import DRIFT
from forgetbench.tables.scores import MATRIX_COLUMNS, SCORE_COLUMNS
from forgetbench.terminal import audit_table, matrix_table, sweep_table, training_lines
from forgetbench.terminal.console import console, print_parts, unwrapped
from forgetbench.terminal.drift import drift_line
from forgetbench.terminal.guard import ending_line
from forgetbench.terminal.plain import plain_rows, to_json, to_tsv
from forgetbench.terminal.strategies import course_table, strategy_table
from forgetbench.terminal.wording import first_decoding


@dataclass(frozen=True)
class StoredTables:
    """A run, or the runs of a sweep, as far as they are scored."""

    folder: Path
    runs: Sequence[StoredRun]
    scores: pd.DataFrame
    """scores.csv of all of them."""
    matrix: pd.DataFrame
    """matrix.csv of all of them."""

    @property
    def is_run(self) -> bool:
        """Whether the folder is a run's, not a sweep's."""
        return [run.folder for run in self.runs] == [self.folder]

    def rows(self) -> pd.DataFrame:
        """The summary for programs."""
        return plain_rows(self.matrix, self.scores)

    def parts(self) -> Iterator[RenderableType]:
        """What a terminal shows."""
        for run in self.runs:  # those that were held to a budget of forgetting
            if ending := ending_of(run.folder):
                yield unwrapped(ending_line(run.name, ending))
        if self.scores.empty:
            yield from _unscored_parts(self.runs)
        elif len(self.runs) == 1:
            if (continual := self.runs[0].folder / COURSE).is_file():
                yield course_table(read_table(continual))
            yield matrix_table(self.scores, self.matrix)
            if line := drift_line(self.runs[0].table(DRIFT)):
                yield line
        else:
            if (strategies := self.folder / STRATEGIES).is_file():
                yield strategy_table(read_table(strategies))
            notes = endings(run.folder for run in self.runs)
            yield sweep_table(self.matrix, self.scores, first_decoding(self.matrix["decoding"]) or "choice", notes)
            if waiting := [run.name for run in self.runs if run.scores.empty]:
                yield unwrapped(f"not scored yet: {', '.join(waiting)}")


def read_stored_tables(path: Path) -> StoredTables:
    """The stored tables of a run or a sweep.

    Raises:
        UserError: there is no run, or two engines scored them.
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
    return StoredTables(path, runs, scores, matrix)


def print_stored_tables(tables: StoredTables, as_json: bool) -> None:
    """A table in a terminal, tab-separated rows in a pipe, JSON if asked for.

    Raises:
        UserError: there are no rows for a program.
    """
    if as_json or not console.is_terminal:
        if tables.scores.empty:
            raise UserError(f"{tables.folder} {_unscored_message(tables.folder)}")
        sys.stdout.write(to_json(tables.rows()) if as_json else to_tsv(tables.rows()))
        return
    print_parts(console, tables.parts())


def _unscored_parts(runs: Sequence[StoredRun]) -> Iterator[RenderableType]:
    for run in runs:
        if run.run:
            yield audit_table(run.run.audit)
        yield training_lines(read_table(run.folder / "train.csv"))
        yield unwrapped(f"{run.folder} {_unscored_message(run.folder)}")


def _unscored_message(folder: Path) -> str:
    return f"has no scores yet: forgetbench eval-matrix {argument('run', folder)}"
