"""What a path names: a run, a sweep, the seeds of a recipe, or a checkpoint of one. Every command asks here."""

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

_INSIDE = "checkpoints"


@dataclass(frozen=True)
class Address:
    """A path as a command got it, taken apart; what is there is looked up when it is asked for."""

    text: str
    folder: Path
    """A run's or a sweep's; with `*` in it, those of several runs."""
    checkpoint: str | None
    """Folder name of a checkpoint; None where the path names none, which means the last one as trained."""

    @property
    def is_base(self) -> bool:
        """Whether it names the untouched base."""
        return self.checkpoint == BASE.name

    @cached_property
    def runs(self) -> list[StoredRun]:
        """The run, every point of the sweep, or every scored run that the pattern matches.

        Raises:
            UserError: there is none.
        """
        if not self._is_pattern():
            return stored_runs(self.folder)
        found = named([folder for folder in self._matches() if (folder / "scores.csv").is_file()])
        if not found:
            raise UserError(f"{self.text} matches no scored run.")
        return found

    def seeds(self) -> list[StoredRun]:
        """Runs that differ in nothing but the seed.

        Raises:
            UserError: it names a sweep, or several recipes.
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
        """Itself, where one folder is asked for, and a checkpoint would make no sense.

        Raises:
            UserError: it names a checkpoint, or no folder.
        """
        if self.checkpoint is not None:
            raise UserError(f"{self.text} is one checkpoint; name the folder of the run instead: {self.folder}")
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is not a folder; name a run's or a sweep's, such as outputs/demo.")
        return self

    def base(self) -> Address:
        """The untouched base of the same runs."""
        return replace(self, checkpoint=BASE.name)

    def run(self) -> Run:
        """The trained run.

        Raises:
            UserError: there is none in the folder.
        """
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is not a folder; name a run's, such as outputs/my_run.")
        return read_run(self.folder)

    def saved(self) -> Checkpoint:
        """The checkpoint as it was saved; of a run, the last one as trained.

        Raises:
            UserError: the run has none of that name.
        """
        checkpoints = list_checkpoints(self.folder)
        if self.is_base:
            return BASE
        if self.checkpoint is None:
            return [one for one in checkpoints if not one.variant][-1]
        found = [one for one in checkpoints if one.path and one.path.name == self.checkpoint]
        if not found:
            known = ", ".join(["base", *(one.path.name for one in checkpoints if one.path)])
            raise UserError(f"{self.folder} has no checkpoint {self.checkpoint}; it has {known}.")
        return found[0]

    def scores(self, run: StoredRun) -> pd.DataFrame:
        """A run's own metrics at the checkpoint, a row per cell.

        Raises:
            UserError: it has not been scored.
        """
        if self.checkpoint is None:
            return run.last("")
        own = run.own_metrics()
        rows: pd.DataFrame = run.bases() if self.is_base else own[own["checkpoint"] == self.checkpoint]
        if rows.empty:
            known = ", ".join(dict.fromkeys(own.sort_values(["stage", "step"])["checkpoint"]))
            raise UserError(f"{run.folder} has no scores of {self.checkpoint}; it has {known}.")
        return rows

    def _matches(self) -> list[Path]:
        """Folders that the pattern matches; a folder that is there is no pattern, whatever signs its name has."""
        root, rest = Path(self.folder.anchor), list(self.folder.parts[bool(self.folder.anchor) :])
        while rest and (root / rest[0]).exists():
            root /= rest.pop(0)
        return sorted(root.glob(str(Path(*rest))))

    def _is_pattern(self) -> bool:
        return any(sign in str(self.folder) for sign in "*?[") and not self.folder.exists()


def resolve(address: str | Path) -> Address:
    """Take an address apart.

    Args:
        address: a run's or a sweep's folder; `<run>/checkpoints/<name>`, where the name may also be `base`; with `*` in
            the run's name, the runs of several seeds.
    """
    path = Path(address)
    folder = path.parent.parent
    # A folder of outputs or a sweep may be called like that, too: then what is above it exists and is no run.
    holds_no_run = folder.is_dir() and not any((folder / name).is_file() for name in (FILE, "scores.csv"))
    if path.parent.name != _INSIDE or holds_no_run or (path / FILE).is_file():
        return Address(str(address), path, None)
    return Address(str(address), folder, BASE.name if path.name == "base" else path.name)
