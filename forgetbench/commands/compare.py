"""`forgetbench compare`: two checkpoints, runs or recipes on the same items."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from forgetbench.core.errors import UserError
from forgetbench.runs.address import Address, resolve
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.comparison import Side, compare, left_out
from forgetbench.terminal.console import console
from forgetbench.terminal.plain import written_for_program
from forgetbench.terminal.questions import comparison_table


def compare_checkpoints(addresses: Sequence[str], margin: float, decoding: str | None, as_json: bool) -> None:
    """The change from one checkpoint to another, item by item; of one address, from its base to it.

    Raises:
        UserError: an address names no scored checkpoint, or the two have nothing in common.
    """
    if not 0 < margin < 100:
        raise UserError(f"--margin {margin:g}: give points between 0 and 100, such as 2.")
    if len(addresses) == 1:
        address = resolve(addresses[0])
        if address.is_base or any((run.last("")["step"] == 0).all() for run in address.seeds()):
            raise UserError(f"{addresses[0]}: there is only the base, which has not changed; name two sides.")
        sides = [_side(f"base of {addresses[0]}", address.base()), _side(addresses[0], address)]
    else:
        sides = [_side(address, resolve(address)) for address in addresses]
    if decoding is not None:
        sides = [_only(side, decoding) for side in sides]
    rows = compare(sides[0], sides[1], margin / 100)
    lines = left_out(sides[0], sides[1])
    if written_for_program(rows, as_json):
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        return
    console.print(comparison_table(rows, sides[0].label, sides[1].label))
    for line in lines:
        console.print(line)


def _only(side: Side, decoding: str) -> Side:
    """A side's cells of one decoding, so that p-values are adjusted for what is shown."""
    found = sorted({cell.context.decoding for cells in side.seeds.values() for cell in cells})
    if decoding not in found:
        raise UserError(f"--decoding {decoding}: {side.label} was scored by {', '.join(found)}.")
    kept = {seed: [cell for cell in cells if cell.context.decoding == decoding] for seed, cells in side.seeds.items()}
    return Side(side.label, kept)


def _side(label: str, address: Address) -> Side:
    seeds: dict[int | None, Sequence[CellView]] = {}
    for run in address.seeds():
        if run.seed in seeds:
            raise UserError(f"{label}: two runs with seed {run.seed}; name them one by one.")
        seeds[run.seed] = run.views(address.scores(run))
    return Side(label, seeds)
