"""Read what runs left behind: their tables, and the cells that the tables name. No model, no torch."""

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
_WIDEST = 2**16
"""Characters of the names of columns."""


def read_table(path: Path) -> pd.DataFrame:
    """One of our CSVs, text columns as text; an empty frame where there is no file, or nothing in it.

    A log that is being written may end in half a line, which is left out.

    Raises:
        UserError: it is not that table, or it was cut short.
    """
    if not path.exists():
        return pd.DataFrame()
    text = read_text(path)
    if path.name == _LOG and "\n" in text:
        text = text[: text.rfind("\n") + 1]  # a step that is being written
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
    """Refuse what no table of ours holds, and what pandas would pass over or read for minutes.

    Raises:
        ValueError: the first line is too long, or there are NUL bytes, as after a crash of the machine.
    """
    if len(text.partition("\n")[0]) > _WIDEST:
        raise ValueError(f"its first line is longer than {_WIDEST:,} characters")
    if "\0" in text:
        raise ValueError("it holds NUL bytes")


def lost_checkpoints(run: Run) -> str:
    """What tells of checkpoints that the run's tables have rows of and that are gone; empty where none is.

    Nothing could make those rows again.
    """
    rows = read_table(run.folder / "scores.csv")
    gone = sorted(set(rows["checkpoint"] if len(rows) else ()) - {one.name for one in run.checkpoints()})
    if not gone:
        return ""
    return f"{run.folder}: the tables have rows of {', '.join(gone)}, and the run has no such checkpoint any more"


def outputs_of(run: Run, outputs: Path) -> Path:
    """The folder that holds a run's cells, wherever the command is given: there everything that reads the run looks.

    It is the one that the run was scored into last; else the nearest folder above the run that holds cells or is
    `outputs`; without either, the one that the run was written to.
    """
    found = _with_cells(run.folder, outputs) or run.outputs
    return outputs if found == outputs.resolve() else found


def _with_cells(folder: Path, outputs: Path | None = None) -> Path | None:
    """Where a folder was scored into last; else the nearest folder above that holds cells, or is `outputs`."""
    scored, named = recall(folder), outputs.resolve() if outputs else None
    if scored and (scored.outputs / ".cells").is_dir():
        return scored.outputs.resolve()
    return next((one for one in folder.resolve().parents if (one / ".cells").is_dir() or one == named), None)


@lru_cache(maxsize=16)
def _store(outputs: Path) -> CellStore:
    return CellStore(outputs)


@lru_cache(maxsize=64)
def _read(store: CellStore, digest: str, metric: Metric) -> Cell:
    """A cell; the base's are asked for by every run.

    Raises:
        LookupError: it is missing, which is not kept: it may be made before it is asked for again.
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
    """A trained run, or the scores of a model that no run of ours trained."""

    folder: Path
    recipe: str = ""
    """A name that runs share which differ in nothing but the seed."""
    strategy: str = ""
    """A name that runs share which differ in nothing but the seed and the order of tasks."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def table(self, file: str) -> pd.DataFrame:
        """One of its CSVs; a folder that was renamed has its present name in them."""
        frame = read_table(self.folder / file)
        return frame.assign(run=self.name) if "run" in frame else frame

    @cached_property
    def run(self) -> Run | None:
        """What was trained; None for a base model, or for predictions made elsewhere."""
        path = self.folder / FILE
        return _run(self.folder, path.stat().st_mtime_ns) if path.is_file() else None

    @cached_property
    def recipes(self) -> Sequence[RecipeConfig]:
        """What each of its stages was trained with; none without a run.json."""
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
        """The seed it was trained with."""
        return self.run.config.seed if self.run else None

    @cached_property
    def manifests(self) -> list[str]:
        """Folders of the manifests that its tables were made with."""
        return manifest_folders(self.folder, self.run)

    @cached_property
    def store(self) -> CellStore:
        """Where its cells are: where it was scored into last, else the nearest `.cells` up from its folder."""
        if found := _with_cells(self.folder):
            return _store(found)
        raise UserError(
            f"{self.folder}: no .cells folder above it, which holds the answers that its tables are made of."
        )

    def own_metrics(self) -> pd.DataFrame:
        """The rows of scores.csv that hold a dataset's own metric, one per cell.

        Raises:
            UserError: it has not been scored.
        """
        if self.scores.empty:
            raise UserError(f"{self.folder} has no scores yet: forgetbench eval-matrix {argument('run', self.folder)}")
        own: pd.DataFrame = self.scores[self.scores["metric"].isin(list(Metric))]
        return own

    def last(self, variant: str | None = None) -> pd.DataFrame:
        """Its own metrics at the last checkpoint as trained (`variant` empty), at one variant, or at all of both."""
        own = last_step(last_stage(self.own_metrics()))
        last: pd.DataFrame = own if variant is None else own[own["variant"] == variant]
        return last

    def bases(self) -> pd.DataFrame:
        """Its own metrics of the untouched model."""
        own = self.own_metrics()
        bases: pd.DataFrame = own[(own["step"] == 0) & (own["variant"] == "")]
        return bases

    def cell(self, row: Mapping[str, Any]) -> Cell:
        """The stored answers behind one row of scores.csv.

        Raises:
            UserError: they are gone.
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
    """train.csv with `run`, `recipe` and `seed` before its own columns; empty where there is none."""
    frame = read_table(run.folder / "train.csv")
    for place, (column, value) in enumerate((("run", run.name), ("recipe", run.recipe), ("seed", run.seed))):
        frame.insert(place, column, value)
    return frame
