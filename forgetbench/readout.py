"""`forgetbench show`, `compare` and `power`: questions to tables and stored answers. No model, no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from forgetbench.analysis.cell_view import CellView
from forgetbench.analysis.comparison import Side, compare
from forgetbench.analysis.power import items_needed
from forgetbench.analysis.tables import MATRIX_COLUMNS, SCORE_COLUMNS
from forgetbench.errors import UserError
from forgetbench.records import Metric
from forgetbench.reporting.console import console, say
from forgetbench.reporting.plain import plain_rows, to_json, to_tsv
from forgetbench.reporting.questions import comparison_table, power_table
from forgetbench.reporting.terminal import audit_table, matrix_table, sweep_table, training_lines
from forgetbench.reporting.terminal.strategies import course_table, strategy_table
from forgetbench.reporting.wording import first_decoding
from forgetbench.stored.courses import STRATEGIES
from forgetbench.stored.courses import TABLE as COURSE
from forgetbench.stored.recipes import named, stored_runs
from forgetbench.stored.runs import StoredRun, read_table

_BASE = ("base", "step_000000")


def show(path: Path, as_json: bool) -> None:
    """The summary of a run or a sweep: a table in a terminal, tab-separated rows in a pipe, JSON if asked for.

    Raises:
        UserError: there is nothing to show.
    """
    runs = stored_runs(path)
    scores, matrix = (
        pd.concat([table for table in tables if not table.empty] or [pd.DataFrame(columns=columns)], ignore_index=True)
        for tables, columns in (
            ([run.scores for run in runs], SCORE_COLUMNS),
            ([run.matrix for run in runs], MATRIX_COLUMNS),
        )
    )
    if scores.empty and (as_json or not console.is_terminal):
        raise UserError(f"{path} has no scores yet: forgetbench eval-matrix run={path}")
    if as_json or not console.is_terminal:
        rows = plain_rows(matrix, scores)
        sys.stdout.write(to_json(rows) if as_json else to_tsv(rows))
        return
    if scores.empty:
        _show_unscored(runs)
    elif len(runs) == 1:
        if (continual := runs[0].folder / COURSE).is_file():
            console.print(course_table(read_table(continual)))
        console.print(matrix_table(scores, matrix))
    else:
        if (strategies := path / STRATEGIES).is_file():
            console.print(strategy_table(read_table(strategies)))
        console.print(sweep_table(matrix, scores, first_decoding(matrix["decoding"]) or "choice"))
        if waiting := [run.name for run in runs if run.scores.empty]:
            say(f"not scored yet: {', '.join(waiting)}")


def _show_unscored(runs: Sequence[StoredRun]) -> None:
    for run in runs:
        if run.file:
            console.print(audit_table(run.file.audit))
        console.print(training_lines(read_table(run.folder / "train.csv")))
        say(f"{run.folder} has no scores yet: forgetbench eval-matrix run={run.folder}")


def compare_checkpoints(addresses: Sequence[str], margin: float, decoding: str | None, as_json: bool) -> None:
    """The change from one checkpoint to another, item by item; of one address, from its base to it.

    Raises:
        UserError: an address names no scored checkpoint, or the two have nothing in common.
    """
    if not 0 < margin < 100:
        raise UserError(f"--margin {margin:g}: give points between 0 and 100, such as 2.")
    if len(addresses) == 1:
        runs, checkpoint = _resolve(addresses[0])
        if checkpoint in _BASE or any((run.last("")["step"] == 0).all() for run in runs):
            raise UserError(f"{addresses[0]}: there is only the base, which has not changed; name two sides.")
        sides = [_side(f"base of {addresses[0]}", runs, _BASE[0]), _side(addresses[0], runs, checkpoint)]
    else:
        sides = [_side(address, *_resolve(address)) for address in addresses]
    if decoding is not None:
        sides = [_only(side, decoding) for side in sides]
    rows = compare(sides[0], sides[1], margin / 100)
    if not _written(rows, as_json):
        console.print(comparison_table(rows, sides[0].label, sides[1].label))


def power(path: Path, points: Sequence[float], wanted: float, alpha: float, as_json: bool) -> None:
    """Items that each cell needs to find a change of so many points; of a sweep, by the run of median error.

    Raises:
        UserError: nothing has been scored, or a number is out of range.
    """
    if any(not 0 < point <= 100 for point in points):
        raise UserError("--points: changes to find are between 0 and 100 points.")
    if not 0.5 <= wanted < 1 or not 0 < alpha <= 0.5:
        raise UserError("--power is at least 0.5 and below 1, --alpha above 0 and at most 0.5.")
    scored = [run.last("") for run in stored_runs(path) if not run.scores.empty]
    if not scored:
        raise UserError(f"{path} has no scores yet: forgetbench eval-matrix run={path}")
    cells = pd.concat(scored, ignore_index=True)
    cells = cells[cells["metric"] != Metric.cider_d].sort_values("delta_stderr", kind="stable")
    kinds = cells.groupby(["quadrant", "dataset", "decoding"])
    cells = pd.concat([cell.iloc[[len(cell) // 2]] for _, cell in kinds], ignore_index=True)
    rows = items_needed(cells, [point / 100 for point in points], wanted, alpha)
    if not _written(rows, as_json):
        console.print(power_table(rows, wanted, alpha))


def _written(rows: pd.DataFrame, as_json: bool) -> bool:
    """Write rows for a program, if one reads them; whether that was so."""
    if as_json or not console.is_terminal:
        sys.stdout.write(to_json(rows) if as_json else to_tsv(rows))
        return True
    return False


def _only(side: Side, decoding: str) -> Side:
    """A side's cells of one decoding, so that p-values are adjusted for what is shown."""
    found = sorted({cell.context.decoding for cells in side.seeds.values() for cell in cells})
    if decoding not in found:
        raise UserError(f"--decoding {decoding}: {side.label} was scored by {', '.join(found)}.")
    kept = {seed: [cell for cell in cells if cell.context.decoding == decoding] for seed, cells in side.seeds.items()}
    return Side(side.label, kept)


def _resolve(address: str) -> tuple[list[StoredRun], str | None]:
    """Runs and the checkpoint that an address names; None is the last one.

    `outputs/a` is a run; `outputs/a/checkpoints/step_000120` one checkpoint of it, or `base` in its place; with `*`
    in it several runs, which must differ in nothing but the seed.
    """
    folder, _, checkpoint = address.rstrip("/").partition("/checkpoints/")
    if any(sign in folder for sign in "*?[") and not Path(folder).exists():
        root = Path(Path(folder).anchor)
        matches = sorted(root.glob(str(Path(folder).relative_to(root))))
        folders = [found for found in matches if (found / "scores.csv").is_file()]
        runs = named(folders)
        if not runs:
            raise UserError(f"{address} matches no scored run.")
        if len({run.recipe for run in runs}) > 1:
            found = ", ".join(sorted({run.recipe for run in runs}))
            raise UserError(f"{address} matches several recipes ({found}); a side is one recipe with its seeds.")
        return runs, checkpoint or None
    runs = stored_runs(Path(folder))
    if len(runs) > 1:
        names = ", ".join(str(run.folder) for run in runs[:4])
        raise UserError(f"{folder} is a sweep; name one of its runs ({names}, ...), or its seeds with a * in quotes.")
    return runs, checkpoint or None


def _side(label: str, runs: Sequence[StoredRun], checkpoint: str | None) -> Side:
    seeds: dict[int | None, Sequence[CellView]] = {}
    for run in runs:
        if run.seed in seeds:
            raise UserError(f"{label}: two runs with seed {run.seed}; name them one by one.")
        seeds[run.seed] = run.views(_rows(run, checkpoint))
    return Side(label, seeds)


def _rows(run: StoredRun, checkpoint: str | None) -> pd.DataFrame:
    if checkpoint is None:
        return run.last("")
    if checkpoint in _BASE:
        rows = run.bases()
    else:
        own = run.own_metrics()
        rows = own[own["checkpoint"] == checkpoint]
    if rows.empty:
        known = ", ".join(dict.fromkeys(run.own_metrics().sort_values(["stage", "step"])["checkpoint"]))
        raise UserError(f"{run.folder} has no scores of {checkpoint}; it has {known}.")
    return rows
