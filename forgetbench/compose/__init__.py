"""Compose a command's config and hand its task to Hydra's own run and multirun.

The only package that knows Hydra. It ends in the same two calls as `@hydra.main`, so launcher and sweeper plugins
(joblib, submitit, ray) work unchanged. A config is checked in full before Hydra makes its first folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from forgetbench.compose.launchers import check_launcher, process_failure, ray_failure, shared_overrides
from forgetbench.compose.overrides import parse
from forgetbench.compose.points import DiskRefusedError, FailedPoint, PointTask, failed_point, output_folder, point_job
from forgetbench.compose.searching import SearchSession, UnfinishedError
from forgetbench.compose.session import open_session, without_hydra
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, ScoreConfig, SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.files import naming
from forgetbench.core.locks import only_command

C = TypeVar("C", FinetuneConfig, EvalMatrixConfig, ScoreConfig, SweepConfig)
T = TypeVar("T")


def compose(kind: type[C], overrides: Sequence[str]) -> C:
    """The checked config of one command; writes nothing.

    Raises:
        UserError: the overrides or the files they choose cannot run; the message lists everything that is wrong.
    """
    with open_session(kind, overrides) as session:
        return cast(C, session.check(session.compose()))


def composed_yaml(kind: type[C], overrides: Sequence[str]) -> str:
    """What `--cfg` prints: the composed config, each missing value as ???; for a sweep, its points as comments."""
    with open_session(kind, _with_grid(overrides) if kind is SweepConfig else overrides) as session:
        config = session.compose()
        points = [f"# point: {' '.join(point)}\n" for point in session.points(config)]
        return "".join(points) + OmegaConf.to_yaml(without_hydra(config), resolve=True)


def run(kind: type[C], overrides: Sequence[str], task: Callable[[C, Path], T]) -> T:
    """Run `task(config, run folder)` once, through Hydra's run, and return its result."""
    failed: list[Exception] = []
    results: list[T] = []

    def job(config: DictConfig) -> None:
        try:
            results.append(task(cast(C, OmegaConf.to_object(config)), output_folder()))
        except Exception as error:
            # Hydra prints a line of its own about any exception that leaves a job, and cuts its traceback.
            failed.append(error)
            with suppress(OSError):  # Hydra made it; not empty, it holds a run
                output_folder().rmdir()

    with open_session(kind, overrides) as session:
        session.check(session.compose())
        session.hydra.run(session.name, job, session.lines)
    if failed:
        raise failed[0]
    return results[0]


def sweep(
    overrides: Sequence[str],
    task: PointTask,
    summarise: Callable[[Path, Sequence[Path]], None] = lambda *_: None,
    search: Callable[[SearchSession, Path], None] = lambda *_: None,
) -> list[FailedPoint]:
    """Run `task(config, point folder)` for every point through Hydra's multirun, or let `search` choose the points.

    Afterwards `summarise(sweep folder, folders of the points that ended well)`. A point that raises leaves its
    traceback in error.txt and does not stop the others, unless the disk that all share takes no more. `task` must be
    picklable for launchers that use other processes; if one of these dies, what the launcher had not finished is left
    for the next time. Another command on the same sweep waits.

    Returns:
        The points without a result; of a search, those that it waits for.

    Raises:
        UserError: the configuration cannot run, the sweep's folder holds a run, or no Ray could be joined.
        OSError: the disk takes no more.
    """
    with open_session(SweepConfig, _with_grid(overrides)) as session:
        sweep_config = session.compose()
        launcher = OmegaConf.to_container(sweep_config.hydra.launcher)
        check_launcher(launcher)
        search_session = SearchSession(session, sweep_config) if sweep_config.search.space else None
        folder_names = [] if search_session else session.check_points(sweep_config)
        folder = Path(sweep_config.hydra.sweep.dir)
        if (folder / "run.json").exists():
            raise UserError(f"{folder} holds a run, not a sweep; give the sweep another name=...")
        with only_command(folder):
            if search_session:
                return _run_search(search_session, folder, search, launcher)
            with _launching(folder, launcher):
                session.hydra.multirun(
                    session.name, point_job(task, folder_names), [*session.lines, *shared_overrides(folder)]
                )
            points = [folder / name for name in folder_names] or sorted(
                path for path in folder.glob("[!.]*") if path.is_dir()
            )
            failed = [point for point in (failed_point(path) for path in points) if point is not None]
            failed_folders = {point.folder for point in failed}
            summarise(folder, [point for point in points if point not in failed_folders])
    return failed


def _run_search(
    search_session: SearchSession, folder: Path, search: Callable[[SearchSession, Path], None], launcher: Any
) -> list[FailedPoint]:
    with _launching(folder, launcher):
        try:
            search(search_session, folder)
        except UnfinishedError:
            return search_session.unfinished()
        return []
    return search_session.unfinished()


@contextmanager
def _launching(folder: Path, launcher: Any) -> Iterator[None]:
    """Say what ended a launcher: a full disk, no Ray, or a process that died, after which the sweep ends."""
    try:
        with naming(folder):
            yield
    except DiskRefusedError as stopped:
        raise cast(OSError, stopped.args[0]) from stopped
    except Exception as error:
        if refusal := ray_failure(error, launcher):
            raise UserError(refusal) from error
        failure = process_failure(error)
        if failure is None:
            raise
        sys.stderr.write(f"A process of the sweep died: {failure}\n")


def _with_grid(overrides: Sequence[str]) -> list[str]:
    """A user's own swept override takes the place of the default sweep."""
    if any("=" not in word for word in overrides):
        return list(overrides)  # refused when the session opens
    parsed = parse(overrides)
    swept = any(override.is_sweep_override() for override in parsed)
    chosen = any(override.key_or_group == "sweep" for override in parsed)
    return [*overrides, "sweep=grid"] if swept and not chosen else list(overrides)
