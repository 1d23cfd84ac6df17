"""One point of a sweep as a launcher runs it, in this process or in one of its own, perhaps on another machine.

While a process works on a point it holds `.lock` in the point's folder; the file is gone when the point has ended, well
or with an error. So a point without a folder was not begun, and one with the file is under way or lost its process.
"""

from __future__ import annotations

import gc
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from forgetbench.config import SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.secrets import without_secrets
from forgetbench.core.streams import guard_streams

PointTask = Callable[[SweepConfig, Path], float | None]

ERROR_FILE = "error.txt"
"""What a failed point leaves in its folder."""
LOCK_FILE = ".lock"
"""What an unfinished point has in its folder."""
TAKEOVER_S = 150.0
"""A file server may take so long to free the lock of a machine that is gone."""


@dataclass(frozen=True)
class FailedPoint:
    """A point without a result."""

    folder: Path
    cause: str
    traceback: Path | None = None
    """None if it did not fail but was not finished: the same command goes on with it."""


def point_job(task: PointTask) -> partial[float | None]:
    """What Hydra runs for each point; picklable if `task` is."""
    return partial(_point, task=task, home=str(Path.cwd()))


def output_folder() -> Path:
    """The folder that Hydra made for this job, as the command that launched it would write it."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def failed_point(folder: Path) -> FailedPoint | None:
    """Why a point has no result after a sweep; None if it ended well."""
    if not folder.is_dir():
        return FailedPoint(folder, "not begun")
    if (folder / LOCK_FILE).exists():
        return FailedPoint(folder, "its process died, or another command is at work on it")
    error = folder / ERROR_FILE
    return FailedPoint(folder, error.read_text("utf-8").splitlines()[0], error) if error.exists() else None


def _point(config: DictConfig, *, task: PointTask, home: str) -> float | None:
    """One job of a multirun; top-level, so that it can be pickled."""
    guard_streams()
    try:
        os.chdir(home)  # relative paths mean the same in every process
    except OSError as error:
        raise UserError(
            f"{home}: not on {socket.gethostname()}; start the sweep in a folder that all machines share."
        ) from error
    folder = output_folder()
    lock, error_file = folder / LOCK_FILE, folder / ERROR_FILE
    try:
        with FileLock(lock, timeout=TAKEOVER_S):
            error_file.unlink(missing_ok=True)
            value = task(cast(SweepConfig, OmegaConf.to_object(config)), folder)
            lock.unlink()
            return value
    except Timeout:  # another command's process is at it, and its files are not ours to touch
        return None
    except Exception as error:
        cause = str(error).splitlines()[:1] or [""]
        text = f"{type(error).__name__}: {cause[0]}\n\n{traceback.format_exc()}"
        error_file.write_text(without_secrets(text), "utf-8")
        lock.unlink(missing_ok=True)
        return None
    finally:
        gc.collect()
