"""Resolve the path that a command got: a run, a sweep, the seeds of a recipe, or a checkpoint of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from forgetbench.core.errors import UserError
from forgetbench.models.checkpoint import BASE, Checkpoint, list_checkpoints
from forgetbench.runs.recipes import named, stored_runs
from forgetbench.runs.run import FILE, Run, read_run
from forgetbench.runs.stored import StoredRun

_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Address:
    """A parsed path; files are read when they are needed."""

    text: str
    folder: Path
    """Folder of a run or sweep, or a pattern with `*` for several runs."""
    checkpoint: str | None
    """Folder name of a checkpoint; None stands for the last trained checkpoint."""

    @property
    def is_base(self) -> bool:
        """Whether the address names the base model."""
        return self.checkpoint == BASE.name

    @cached_property
    def runs(self) -> list[StoredRun]:
        """The run, all points of the sweep, or all scored runs that the pattern matches.

        Raises:
            UserError: there is no run.
        """
        if not self._is_pattern():
            return stored_runs(self.folder)
        runs = named([folder for folder in self._matches() if (folder / "scores.csv").is_file()])
        if not runs:
            raise UserError(f"{self.text} matches no scored run.")
        return runs

    def seeds(self) -> list[StoredRun]:
        """The runs of a single recipe, which differ only in the seed.

        Raises:
            UserError: the address names a sweep or several recipes.
        """
        runs = self.runs
        recipes = sorted({run.recipe for run in runs})
        if self._is_pattern() and len(recipes) > 1:
            raise UserError(
                f"{self.text} matches several recipes ({', '.join(recipes)}); a side is one recipe with its seeds."
            )
        if not self._is_pattern() and len(runs) > 1:
            names = ", ".join(str(run.folder) for run in runs[:4])
            raise UserError(
                f"{self.folder} is a sweep; name one of its runs ({names}, ...), or its seeds with a * in quotes."
            )
        return runs

    def whole(self) -> Address:
        """This address, if it names a folder and no checkpoint.

        Raises:
            UserError: it names a checkpoint, or is not a folder.
        """
        if self.checkpoint is not None:
            raise UserError(f"{self.text} is one checkpoint; name the folder of the run instead: {self.folder}")
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is not a folder; name a run's or a sweep's, such as outputs/demo.")
        return self

    def base(self) -> Address:
        """The address of the base model of the same runs."""
        return replace(self, checkpoint=BASE.name)

    def run(self) -> Run:
        """The trained run.

        Raises:
            UserError: the folder holds no run.
        """
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is not a folder; name a run's, such as outputs/my_run.")
        return read_run(self.folder)

    def saved(self) -> Checkpoint:
        """The saved checkpoint; without a checkpoint in the address, the last trained one.

        Raises:
            UserError: the run has no checkpoint of that name.
        """
        checkpoints = list_checkpoints(self.folder)
        if self.is_base:
            return BASE
        if self.checkpoint is None:
            return [checkpoint for checkpoint in checkpoints if not checkpoint.variant][-1]
        matches = [
            checkpoint for checkpoint in checkpoints if checkpoint.path and checkpoint.path.name == self.checkpoint
        ]
        if not matches:
            names = ", ".join(["base", *(checkpoint.path.name for checkpoint in checkpoints if checkpoint.path)])
            raise UserError(f"{self.folder} has no checkpoint {self.checkpoint}; it has {names}.")
        return matches[0]

    def scores(self, run: StoredRun) -> pd.DataFrame:
        """The rows of the datasets' metrics at the checkpoint, a row per cell.

        Raises:
            UserError: the checkpoint has not been scored.
        """
        if self.checkpoint is None:
            return run.last("")
        metrics = run.own_metrics()
        rows: pd.DataFrame = run.bases() if self.is_base else metrics[metrics["checkpoint"] == self.checkpoint]
        if rows.empty:
            names = ", ".join(dict.fromkeys(metrics.sort_values(["stage", "step"])["checkpoint"]))
            raise UserError(f"{run.folder} has no scores of {self.checkpoint}; it has {names}.")
        return rows

    def _matches(self) -> list[Path]:
        """Folders that the pattern matches; leading folders that exist are taken literally."""
        root, rest = Path(self.folder.anchor), list(self.folder.parts[bool(self.folder.anchor) :])
        while rest and (root / rest[0]).exists():
            root /= rest.pop(0)
        return sorted(root.glob(str(Path(*rest))))

    def _is_pattern(self) -> bool:
        return any(sign in str(self.folder) for sign in "*?[") and not self.folder.exists()


def resolve(address: str | Path) -> Address:
    """Parse an address.

    Args:
        address: folder of a run or sweep, or `<run>/checkpoints/<name>`, where the name may be `base`. A `*` in the
            run's name stands for the runs of several seeds.
    """
    path = Path(address)
    folder = path.parent.parent
    # A folder of outputs or a sweep may also be named `checkpoints`; then the folder above exists and holds no run.
    holds_no_run = folder.is_dir() and not any((folder / name).is_file() for name in (FILE, "scores.csv"))
    if path.parent.name != _CHECKPOINTS or holds_no_run or (path / FILE).is_file():
        return Address(str(address), path, None)
    return Address(str(address), folder, BASE.name if path.name == "base" else path.name)
