"""Read the tables of runs and the cells that they name. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from forgetbench.config import RecipeConfig
from forgetbench.core.errors import UserError, reason
from forgetbench.core.reading import read_text
from forgetbench.core.records import Axis, Metric, Placement
from forgetbench.core.shell import argument
from forgetbench.evaluation.cells import Cell, CellStore
from forgetbench.runs.run import FILE, Run, read_run
from forgetbench.runs.scored import manifest_folders, recall, remade_by
from forgetbench.runs.table_check import COMPLETE, problems
from forgetbench.tables.cell_view import CellView, row_context
from forgetbench.tables.guard import GUARD
from forgetbench.tables.last import last_stage, last_step

_TEXT = {
    **dict.fromkeys(("run", "model", "target", "checkpoint", "variant", "method", "parts", "lr", "mix"), str),
    **dict.fromkeys(("quadrant", "cell", "strategy", "training", "tasks", "trained", "task", "relation"), str),
    **dict.fromkeys(("reference", "group", "datasets", "decision"), str),
}


_LOG = "train.csv"
_MAX_HEADER = 2**16
"""Longest header line, in characters."""


def read_table(path: Path) -> pd.DataFrame:
    """Read one of our CSVs, with text columns as text; an empty frame if the file is missing or empty.

    A log that is being written may end in an incomplete line, which is left out.

    Raises:
        UserError: it is not the expected table, or it is truncated.
    """
    if not path.exists():
        return pd.DataFrame()
    text = read_text(path)
    if path.name == _LOG and "\n" in text:
        text = text[: text.rfind("\n") + 1]  # drop a line that is being written
    if not text.strip():
        return pd.DataFrame()
    maker = "finetune" if path.name in (_LOG, GUARD) else "eval-matrix"
    fix = f"Delete it; `forgetbench {maker}` makes it again."
    try:
        _check_text(text)
        head = pd.read_csv(StringIO(text), nrows=0).columns
        types: Any = {column: kind for column, kind in _TEXT.items() if column in head}
        frame = pd.read_csv(StringIO(text), dtype=types, keep_default_na=False, na_values=[""], low_memory=False)
    except (ValueError, OSError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as a table ({reason(error)}). {fix}") from error
    if path.name == _LOG and len(frame) and frame.iloc[-1].reindex(COMPLETE[_LOG]).isna().any():
        frame = frame.iloc[:-1]
    for problem in problems(path.name, frame):
        raise UserError(f"{path} is no table of forgetbench, or damaged: {problem}. {fix}")
    texts = [column for column in types if column in frame]
    frame[texts] = frame[texts].fillna("")
    return frame


def _check_text(text: str) -> None:
    """Refuse content that is in none of our tables and that pandas would ignore or read for minutes.

    Raises:
        ValueError: the first line is too long, or there are NUL bytes, as after a crash of the machine.
    """
    if len(text.partition("\n")[0]) > _MAX_HEADER:
        raise ValueError(f"its first line is longer than {_MAX_HEADER:,} characters")
    if "\0" in text:
        raise ValueError("it holds NUL bytes")


def lost_checkpoints(run: Run) -> str:
    """A message if the run's tables have rows of checkpoints that no longer exist; else empty.

    These rows could not be made again.
    """
    rows = read_table(run.folder / "scores.csv")
    lost = sorted(set(rows["checkpoint"] if len(rows) else ()) - {checkpoint.name for checkpoint in run.checkpoints()})
    if not lost:
        return ""
    return f"{run.folder}: the tables have rows of {', '.join(lost)}, and the run has no such checkpoint any more"


def outputs_of(run: Run, outputs: Path) -> Path:
    """The folder that holds a run's cells, for any working folder.

    It is the folder that the run was last scored into; else the nearest folder above the run that holds cells or is
    `outputs`; else the folder that the run was written to.
    """
    folder = _outputs_with_cells(run.folder, outputs) or run.outputs
    return outputs if folder == outputs.resolve() else folder


def _outputs_with_cells(folder: Path, outputs: Path | None = None) -> Path | None:
    """The outputs that a folder was last scored into, else the nearest folder above with cells, or `outputs`."""
    scored, default = recall(folder), outputs.resolve() if outputs else None
    if scored and (scored.outputs / ".cells").is_dir():
        return scored.outputs.resolve()
    return next(
        (parent for parent in folder.resolve().parents if (parent / ".cells").is_dir() or parent == default), None
    )


@lru_cache(maxsize=16)
def _store(outputs: Path) -> CellStore:
    return CellStore(outputs)


@lru_cache(maxsize=64)
def _read(store: CellStore, digest: str, metric: Metric) -> Cell:
    """Read a cell, with a cache, because every run reads the base's cells.

    Raises:
        LookupError: it is missing; this is not cached, because the cell may be made later.
    """
    cell = store.read(digest, metric, "it counts as missing")
    if cell is None:
        raise LookupError(digest)
    return cell


@lru_cache(maxsize=1024)
def _run(folder: Path, _modified_ns: int) -> Run:
    return read_run(folder)


@dataclass(frozen=True)
class StoredRun:
    """A trained run, or the scores of a model without a run."""

    folder: Path
    recipe: str = ""
    """Name shared by runs that differ only in the seed."""
    strategy: str = ""
    """Name shared by runs that differ only in the seed and the order of tasks."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def table(self, file: str) -> pd.DataFrame:
        """Read a CSV of the run; the column `run` has the folder's current name."""
        frame = read_table(self.folder / file)
        return frame.assign(run=self.name) if "run" in frame else frame

    @cached_property
    def run(self) -> Run | None:
        """The trained run; None for a base model or predictions of another program."""
        path = self.folder / FILE
        return _run(self.folder, path.stat().st_mtime_ns) if path.is_file() else None

    @cached_property
    def recipes(self) -> Sequence[RecipeConfig]:
        """The recipe of each stage; empty without a run.json."""
        return self.run.recipes if self.run else []

    @cached_property
    def scores(self) -> pd.DataFrame:
        """scores.csv."""
        return self.table("scores.csv")

    @cached_property
    def matrix(self) -> pd.DataFrame:
        """matrix.csv."""
        return self.table("matrix.csv")

    @property
    def seed(self) -> int | None:
        """The seed of training."""
        return self.run.config.seed if self.run else None

    @cached_property
    def manifests(self) -> list[str]:
        """Manifest folders that the tables were made with."""
        return manifest_folders(self.folder, self.run)

    @cached_property
    def store(self) -> CellStore:
        """The store of its cells: where it was last scored into, else the nearest `.cells` above its folder."""
        if outputs := _outputs_with_cells(self.folder):
            return _store(outputs)
        raise UserError(
            f"{self.folder}: no .cells folder above it, which holds the answers that its tables are made of."
        )

    def own_metrics(self) -> pd.DataFrame:
        """The rows of scores.csv with the datasets' metrics, a row per cell.

        Raises:
            UserError: the run has not been scored.
        """
        if self.scores.empty:
            raise UserError(f"{self.folder} has no scores yet: forgetbench eval-matrix {argument('run', self.folder)}")
        rows: pd.DataFrame = self.scores[self.scores["metric"].isin(list(Metric))]
        return rows

    def last(self, variant: str | None = None) -> pd.DataFrame:
        """The rows of `own_metrics` at the last checkpoint: as trained (""), of a variant, or all of them (None)."""
        rows = last_step(last_stage(self.own_metrics()))
        last: pd.DataFrame = rows if variant is None else rows[rows["variant"] == variant]
        return last

    def bases(self) -> pd.DataFrame:
        """The rows of `own_metrics` of the base model."""
        rows = self.own_metrics()
        bases: pd.DataFrame = rows[(rows["step"] == 0) & (rows["variant"] == "")]
        return bases

    def cell(self, row: Mapping[str, Any]) -> Cell:
        """The stored answers behind a row of scores.csv.

        Raises:
            UserError: they are missing or damaged.
        """
        try:
            return _read(self.store, str(row["cell"]), Metric(row["metric"]))
        except LookupError as error:
            raise UserError(
                f"{self.store.path(str(row['cell']))} is missing or damaged: the answers of {self.name}, "
                f"{row['checkpoint']}, {row['dataset']}. {remade_by(self.folder)}"
            ) from error

    def views(self, rows: pd.DataFrame) -> list[CellView]:
        """The cells of rows of scores.csv, with their context."""
        return [self._view(row) for row in rows.to_dict("records")]

    def _view(self, row: Mapping[Any, Any]) -> CellView:
        cell = self.cell(row)
        axes = Axis(row["text_axis"]), Axis(row["image_axis"])
        context = row_context(
            {**row, "run": self.name},
            placement=Placement(*axes, str(row["quadrant"]), bool(row["seen_in_mix"])),
            metric=cell.metric,
            probe=bool(cell.frame["class_option"].notna().any()),
        )
        return CellView(cell.frame, context)


def train_table(run: StoredRun) -> pd.DataFrame:
    """train.csv with `run`, `recipe` and `seed` as first columns; empty if there is no file."""
    frame = read_table(run.folder / "train.csv")
    for place, (column, value) in enumerate((("run", run.name), ("recipe", run.recipe), ("seed", run.seed))):
        frame.insert(place, column, value)
    return frame
