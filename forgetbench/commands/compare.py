"""`forgetbench compare`: two checkpoints, runs or recipes on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from forgetbench.core.errors import UserError
from forgetbench.runs.recipes import named, stored_runs
from forgetbench.runs.stored import StoredRun
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.comparison import Side, compare
from forgetbench.terminal.console import console
from forgetbench.terminal.plain import written_for_program
from forgetbench.terminal.questions import comparison_table

_BASE = ("base", "step_000000")


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
    if not written_for_program(rows, as_json):
        console.print(comparison_table(rows, sides[0].label, sides[1].label))


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
