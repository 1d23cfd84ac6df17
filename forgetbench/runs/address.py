"""Which checkpoint of which run a path names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.models.checkpoint import BASE, Checkpoint, list_checkpoints
from forgetbench.runs.run_file import RunFile, read_run

NOT_KNOWN = "not known"
"""In the `environment` of an imported run's run.json: the settings that the other trainer did not tell."""


@dataclass(frozen=True)
class Address:
    """One checkpoint of a run."""

    folder: Path
    """The run's."""
    run: RunFile
    checkpoint: Checkpoint


def resolve(path: Path) -> Address:
    """Find a checkpoint.

    Args:
        path: a run's folder, which stands for its last checkpoint as trained, or `<run>/checkpoints/<name>`, where the
            name may also be `base`.

    Raises:
        UserError: there is no such run or checkpoint.
    """
    inside = path.parent.name == "checkpoints"
    folder = path.parent.parent if inside else path
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name a run's, such as outputs/my_run.")
    run, checkpoints = read_run(folder), list_checkpoints(folder)
    if not inside:
        return Address(folder, run, [one for one in checkpoints if not one.variant][-1])
    if path.name in ("base", BASE.name):
        return Address(folder, run, BASE)
    found = [one for one in checkpoints if one.path and one.path.name == path.name]
    if not found:
        known = ", ".join(["base", *(one.path.name for one in checkpoints if one.path)])
        raise UserError(f"{folder} has no checkpoint {path.name}; it has {known}.")
    return Address(folder, run, found[0])
