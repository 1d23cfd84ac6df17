"""`forgetbench compare`: two checkpoints, runs or recipes on the same items."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import RenderableType

from forgetbench.core.errors import UserError
from forgetbench.runs.address import Address, resolve
from forgetbench.runs.engines import check_one_engine, engine_of, rows_by_engine
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.comparison import Side, compare, engine_lines, left_out
from forgetbench.terminal.console import console, print_parts
from forgetbench.terminal.plain import written_for_program
from forgetbench.terminal.questions import comparison_table


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    margin: float = 2.0
    """Points within which a change counts as none."""
    decoding: str | None = None
    """Compare this decoding only."""
    engine: str | None = None
    """Hold a run against itself as this engine scored it."""
    across_engines: bool = False
    """Whether the two sides may come from different engines."""


@dataclass(frozen=True)
class Comparison:
    """Two sides on the same items."""

    rows: pd.DataFrame
    """A row per quadrant, interaction and dataset."""
    first: str
    """The name of the side that the change starts from."""
    second: str
    left_out: Sequence[str]
    """Lines that name what only one side has."""

    def parts(self) -> list[RenderableType]:
        """What a terminal shows."""
        return [comparison_table(self.rows, self.first, self.second), *self.left_out]


def compare_checkpoints(addresses: Sequence[str], options: Options) -> Comparison:
    """The change from one checkpoint to another, item by item; with one address, from its base to it.

    Raises:
        UserError: an address names no scored checkpoint, or the two have nothing in common.
    """
    if not 0 < options.margin < 100:
        raise UserError(f"--margin {options.margin:g}: give points between 0 and 100, such as 2.")
    sides = _sides_by_engine(addresses, options.engine) if options.engine else _sides(addresses, options.across_engines)
    if options.decoding is not None:
        sides = [_with_decoding(side, options.decoding) for side in sides]
    rows = compare(sides[0], sides[1], options.margin / 100)
    lines = left_out(sides[0], sides[1])
    if options.engine:
        lines = [*lines, *engine_lines(sides[0], sides[1])]
    return Comparison(rows, sides[0].label, sides[1].label, lines)


def print_comparison(comparison: Comparison, as_json: bool) -> None:
    """A table in a terminal, tab-separated rows in a pipe, JSON if asked for."""
    if written_for_program(comparison.rows, as_json):
        sys.stderr.write("".join(f"{line}\n" for line in comparison.left_out))
        return
    print_parts(console, comparison.parts())


def _sides(addresses: Sequence[str], across_engines: bool) -> list[Side]:
    resolved = [resolve(address) for address in addresses]
    if not across_engines:
        runs = [run for address in resolved for run in address.seeds()]
        check_one_engine(runs, "Or compare them all the same with --across-engines.")
    if len(addresses) > 1:
        return [_side(label, address) for label, address in zip(addresses, resolved, strict=True)]
    (address,) = resolved
    if address.is_base or any((run.last("")["step"] == 0).all() for run in address.seeds()):
        raise UserError(f"{addresses[0]}: there is only the base, which has not changed; name two sides.")
    return [_side(f"base of {addresses[0]}", address.base()), _side(addresses[0], address)]


def _sides_by_engine(addresses: Sequence[str], engine: str) -> list[Side]:
    """Two sides of one run: as its last engine scored it, and as `engine` did."""
    if len(addresses) > 1:
        raise UserError("--engine holds one run against itself; name one.")
    address = resolve(addresses[0])
    check_one_engine(address.seeds(), "Name one run.")
    last_engine = engine_of(address.seeds()[0])
    if last_engine == engine:
        raise UserError(f"--engine {engine}: {addresses[0]} was scored by it last; name the other engine.")
    rows = [(run, address.scores(run)) for run in address.seeds()]
    return [
        Side(f"{addresses[0]} by {last_engine}", {run.seed: run.views(scores) for run, scores in rows}),
        Side(
            f"{addresses[0]} by {engine}",
            {run.seed: run.views(rows_by_engine(run, scores, engine)) for run, scores in rows},
        ),
    ]


def _with_decoding(side: Side, decoding: str) -> Side:
    """A side's cells of one decoding, so that p-values are adjusted for what is shown."""
    decodings = sorted({cell.context.decoding for cells in side.seeds.values() for cell in cells})
    if decoding not in decodings:
        raise UserError(f"--decoding {decoding}: {side.label} was scored by {', '.join(decodings)}.")
    seeds = {seed: [cell for cell in cells if cell.context.decoding == decoding] for seed, cells in side.seeds.items()}
    return Side(side.label, seeds)


def _side(label: str, address: Address) -> Side:
    seeds: dict[int | None, Sequence[CellView]] = {}
    for run in address.seeds():
        if run.seed in seeds:
            raise UserError(f"{label}: two runs with seed {run.seed}; name them one by one.")
        seeds[run.seed] = run.views(address.scores(run))
    return Side(label, seeds)
