"""What the functions return: folders with their tables as pandas frames, shown as the command line shows them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from forgetbench.core.streams import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from rich.console import RenderableType

    from forgetbench.commands.compare import Comparison
    from forgetbench.commands.show import StoredTables
    from forgetbench.compose.points import FailedPoint

_WIDEST, _NARROWEST = 120, 80
"""Columns of a text."""


class _Result:
    """Text in a terminal; nothing is read before it is shown."""

    def _parts(self) -> Iterable[RenderableType]:
        raise NotImplementedError

    def __str__(self) -> str:
        from forgetbench.terminal.console import as_text

        return as_text(self._parts(), min(max(get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython shows in a terminal."""
        printer.text("..." if cycle else str(self))


@dataclass(frozen=True, eq=False)
class _FolderResult(_Result):
    """A folder with tables, each read once, at its first use. It can be used as a path."""

    folder: Path
    """Where everything is."""
    _stored: StoredTables | None = field(default=None, repr=False, kw_only=True)

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def stored(self) -> StoredTables:
        """What the command line prints from; no part of the public interface."""
        from forgetbench.commands.show import read_stored_tables

        return self._stored or read_stored_tables(self.folder)

    @property
    def scores(self) -> pd.DataFrame:
        """scores.csv: a row per checkpoint, dataset, decoding and metric; no rows before anything is scored."""
        return self.stored.scores

    @property
    def matrix(self) -> pd.DataFrame:
        """matrix.csv: a row per checkpoint, quadrant and decoding; no rows before anything is scored."""
        return self.stored.matrix

    @cached_property
    def rows(self) -> pd.DataFrame:
        """What `forgetbench show --json` writes: each run's last checkpoint beside its base."""
        return self.stored.rows()

    @cached_property
    def summary(self) -> pd.DataFrame:
        """summary.csv: a row per run and decoding, with what it learnt and what it kept."""
        return self._table("summary.csv")

    @cached_property
    def drift(self) -> pd.DataFrame:
        """drift.csv: a row per checkpoint, how far its answers on the target moved; no rows where it is not known."""
        return self._table("drift.csv")

    @cached_property
    def guard(self) -> pd.DataFrame:
        """guard.csv: a row per look of a budget of forgetting; no rows without a budget."""
        return self._table("guard.csv")

    @cached_property
    def representation(self) -> pd.DataFrame:
        """representation.csv: how checkpoints see pictures; no rows where it was not measured."""
        return self._table("representation.csv")

    @cached_property
    def continual(self) -> pd.DataFrame:
        """continual.csv: a row per stage and task of several tasks; no rows of one task."""
        return self._table("continual.csv")

    def _table(self, file: str) -> pd.DataFrame:
        import pandas as pd

        tables = [table for run in self.stored.runs if not (table := run.table(file)).empty]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def _parts(self) -> Iterable[RenderableType]:
        return self.stored.parts()


@dataclass(frozen=True, eq=False)
class RunResult(_FolderResult):
    """One run, or a base model that was scored alone."""

    @cached_property
    def train(self) -> pd.DataFrame:
        """train.csv: a row per optimiser step; no rows of a base."""
        from forgetbench.runs.stored import read_table

        return read_table(self.folder / "train.csv")

    @property
    def checkpoints(self) -> Sequence[str]:
        """Names of the checkpoints and variants that are there, the base not counted."""
        from forgetbench.models.checkpoint import list_checkpoints

        return [checkpoint.name for checkpoint in list_checkpoints(self.folder) if checkpoint.path]

    def _repr_html_(self) -> str:
        """The 2x2 in a notebook."""
        from forgetbench.api.html import as_text, run_html

        return as_text(str(self)) if self.scores.empty else run_html(self.stored)


@dataclass(frozen=True, eq=False)
class SweepResult(_FolderResult):
    """The runs of a sweep, their tables end to end."""

    failed: Sequence[FailedPoint] = ()
    """Points without a result, each with its folder and cause; empty in what `show` returns."""

    @cached_property
    def runs(self) -> Sequence[RunResult]:
        """The points that are there, one by one."""
        return [RunResult(run.folder) for run in self.stored.runs]

    @cached_property
    def seeds(self) -> pd.DataFrame:
        """seeds.csv: a row per recipe and quadrant; no rows where no recipe has two seeds."""
        return self._read_sweep_table("seeds.csv")

    @cached_property
    def strategies(self) -> pd.DataFrame:
        """strategies.csv: a row per strategy and measure, of several tasks; no rows of one."""
        return self._read_sweep_table("strategies.csv")

    def _read_sweep_table(self, file: str) -> pd.DataFrame:
        from forgetbench.runs.stored import read_table

        return read_table(self.folder / file)

    def _parts(self) -> Iterable[RenderableType]:
        from forgetbench.terminal.console import unwrapped

        yield from (unwrapped(f"no result of {point.folder}: {point.cause}") for point in self.failed)
        if not self.failed or any(self.folder.glob("*/run.json")):
            yield from super()._parts()

    def _repr_html_(self) -> str:
        """A row for each run in a notebook."""
        from forgetbench.api.html import as_text, sweep_html

        if self.failed and not any(self.folder.glob("*/run.json")):
            return as_text(str(self))
        lost = "".join(as_text(f"no result of {point.folder}: {point.cause}") for point in self.failed)
        return lost + (as_text(str(self)) if self.scores.empty else sweep_html(self.stored))


@dataclass(frozen=True, eq=False)
class ComparisonResult(_Result):
    """Two sides on the same items."""

    stored: Comparison = field(repr=False)

    @property
    def rows(self) -> pd.DataFrame:
        """A row per quadrant, interaction and dataset: the two values, the change, its interval, p-values, verdict."""
        return self.stored.rows

    @property
    def first(self) -> str:
        """The name of the side that the change starts from."""
        return self.stored.first

    @property
    def second(self) -> str:
        """The name of the other side."""
        return self.stored.second

    @property
    def left_out(self) -> Sequence[str]:
        """Lines that name what only one side has."""
        return self.stored.left_out

    def __repr__(self) -> str:
        return f"ComparisonResult(first={self.first!r}, second={self.second!r}, rows={len(self.rows)})"

    def _parts(self) -> Iterable[RenderableType]:
        return self.stored.parts()

    def _repr_html_(self) -> str:
        """The table of the command line in a notebook."""
        from forgetbench.api.html import as_text

        return as_text(str(self))


@dataclass(frozen=True)
class ReportResult(_Result):
    """A report's files."""

    page: Path
    """report.html, one file that opens from disk."""
    figures: Sequence[Path]
    """SVG and PNG."""

    def __fspath__(self) -> str:
        return os.fspath(self.page)

    def __str__(self) -> str:
        return shown(f"{self.page}, and {len(self.figures)} files of figures")

    def _repr_html_(self) -> str:
        """A link in a notebook."""
        from forgetbench.api.html import link

        return link(self.page, str(self))
