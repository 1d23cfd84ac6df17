"""One point of a sweep as a launcher runs it, in this process or in another, perhaps on another machine.

While a process works on a point it holds `.lock` in the point's folder; the file is gone when the point has ended, well
or with an error. So a point without a folder was not begun, and one with the file is under way or lost its process.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from forgetbench.config import SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.processes import end_with_parent
from forgetbench.core.secrets import without_secrets
from forgetbench.core.streams import guard_streams
from forgetbench.terminal.progress import say_progress

PointTask = Callable[[SweepConfig, Path], Any]
"""The task of a point; a sweeper or a search gets its result."""

ERROR_FILE = "error.txt"
"""What a failed point leaves in its folder."""
LOCK_FILE = ".lock"
"""What an unfinished point has in its folder."""
TAKEOVER_S = 150.0
"""A file server may take so long to free the lock of a machine that is gone."""
_ENDS_SWEEP = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""A disk that takes no more."""
_ONE_MACHINE = (".BasicLauncher", ".JoblibLauncher")
"""Launchers whose points share a disk, and which end with the first point that ends them."""


class DiskRefusedError(BaseException):
    """The disk takes no more. No `Exception`, after which Hydra would go on with the next point."""


@dataclass(frozen=True)
class FailedPoint:
    """A point without a result."""

    folder: Path
    cause: str
    traceback: Path | None = None
    """None if it did not fail but was not finished: the same command goes on with it."""


def point_job(task: PointTask, names: Sequence[str] = ()) -> partial[Any]:
    """What Hydra runs for each point; picklable if `task` is.

    Args:
        task: what is done for a point.
        names: of all points' folders, as far as they are known in advance.
    """
    return partial(_point, task=task, working_folder=str(Path.cwd()), names=names, command=os.getpid())


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


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold a point's lock; wait as long as a dead machine's may last."""
    file_lock = FileLock(lock)
    try:
        file_lock.acquire(timeout=0)
    except Timeout:
        sys.stderr.write(f"{lock.parent}: another process is at work on it; waiting {TAKEOVER_S:.0f} s at most.\n")
        file_lock.acquire(timeout=TAKEOVER_S)
    try:
        yield
    finally:
        file_lock.release()


def _point(
    config: DictConfig, *, task: PointTask, working_folder: str, names: Sequence[str] = (), command: int = 0
) -> Any:
    """One job of a multirun; top-level, so that it can be pickled."""
    guard_streams()
    if os.getppid() == command:  # joblib's workers outlive a command that is killed
        end_with_parent()
    try:
        os.chdir(working_folder)  # relative paths mean the same in every process
    except OSError as error:
        raise UserError(
            f"{working_folder}: not on {socket.gethostname()}; start the sweep in a folder that all machines share."
        ) from error
    folder = output_folder()
    lock, error_file = folder / LOCK_FILE, folder / ERROR_FILE
    try:
        with _held(lock):
            error_file.unlink(missing_ok=True)
            which = f"point {names.index(folder.name) + 1} of {len(names)}" if folder.name in names else "point"
            say_progress(f"{which}: {folder}")
            value = task(cast(SweepConfig, OmegaConf.to_object(config)), folder)
            lock.unlink()
            return value
    except Timeout:  # another command's process is at it, and its files are not ours to touch
        return None
    except Exception as error:
        if _ends_sweep(error):
            raise DiskRefusedError(error) from error
        cause = str(error).splitlines()[:1] or [""]
        text = f"{type(error).__name__}: {cause[0]}\n\n{traceback.format_exc()}"
        error_file.write_text(without_secrets(text), "utf-8")
        lock.unlink(missing_ok=True)
        return None
    finally:
        gc.collect()


def _ends_sweep(error: Exception) -> bool:
    """Whether the next point would meet the same error, after hours of training."""
    is_shared = str(HydraConfig.get().launcher._target_).endswith(_ONE_MACHINE)
    return is_shared and isinstance(error, OSError) and error.errno in _ENDS_SWEEP
