"""`forgetbench power`: how many items a change takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from forgetbench.core.errors import UserError
from forgetbench.core.shell import argument
from forgetbench.runs.address import resolve
from forgetbench.statistics.power import items_needed
from forgetbench.terminal.console import console
from forgetbench.terminal.plain import written_for_program
from forgetbench.terminal.questions import power_table
from forgetbench.terminal.wording import is_fraction


def power(path: Path, points: Sequence[float], wanted: float, alpha: float, as_json: bool) -> None:
    """Items that each cell needs to find a change of so many points; of a sweep, by the run of median error.

    Raises:
        UserError: nothing has been scored, or a number is out of range.
    """
    if any(not 0 < point <= 100 for point in points):
        raise UserError("--points: changes to find are between 0 and 100 points.")
    if not 0.5 <= wanted < 1 or not 0 < alpha <= 0.5:
        raise UserError("--power is at least 0.5 and below 1, --alpha above 0 and at most 0.5.")
    scored = [run.last("") for run in resolve(path).whole().runs if not run.scores.empty]
    if not scored:
        raise UserError(f"{path} has no scores yet: forgetbench eval-matrix {argument('run', path)}")
    cells = pd.concat(scored, ignore_index=True)
    cells = cells[cells["metric"].map(is_fraction)].sort_values("delta_stderr", kind="stable")
    kinds = cells.groupby(["quadrant", "dataset", "decoding"])
    cells = pd.concat([cell.iloc[[len(cell) // 2]] for _, cell in kinds], ignore_index=True)
    rows = items_needed(cells, [point / 100 for point in points], wanted, alpha)
    if not written_for_program(rows, as_json):
        console.print(power_table(rows, wanted, alpha))
