"""What a search works with: a base configuration, a check of every point, and a launcher to run points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from forgetbench.compose.launchers import shared_overrides
from forgetbench.compose.points import FailedPoint, PointTask, failed_point, point_job
from forgetbench.compose.session import Session
from forgetbench.config import SweepConfig
from forgetbench.config.space import Dimension, corners, keys, read_space
from forgetbench.core.errors import UserError

_MOST_CORNERS = 12
"""Combinations of choices that are tried before anything is trained, at a fifth of a second each."""


class UnfinishedError(Exception):
    """A point was not finished; the same command goes on with it."""


class SearchSession:
    """Checks and launches the points of one search."""

    def __init__(self, session: Session, sweep_config: DictConfig) -> None:
        """Check a space.

        Args:
            session: of the command.
            sweep_config: composed from its overrides.

        Raises:
            UserError: a point of it could not run; nothing was written.
        """
        self.config = cast(SweepConfig, session.check(sweep_config))
        """What all points share; a point's own overrides are put on top."""
        self.space: tuple[Dimension, ...] = read_space(self.config.search.space)
        """What is searched."""
        self.launched: list[Path] = []
        """Folders of the points that were launched last."""
        self._session, self._sweep_config, self._jobs = session, sweep_config, 0
        self._given = cast(list[str], OmegaConf.to_container(sweep_config.hydra.overrides.task, resolve=False))
        self._folders = dict[tuple[str, ...], str]()
        self._check_given()
        self.corners = [self.check(point)[1] for point in corners(self.space, _MOST_CORNERS)]
        """Typed configs of points with every choice, and with the lowest and the highest numbers."""

    def _check_given(self) -> None:
        """Refuse overrides that contradict the space."""
        if self._session.points(self._sweep_config)[1:]:
            raise UserError("A search chooses its points itself; give no lists of values beside search.space.")
        searched = set(keys(self.space))
        for override in self._session.parsed:
            if override.key_or_group in searched:
                key = override.key_or_group
                raise UserError(
                    f"{override.input_line}: {key} is searched; leave it out, or take it out of the space: "
                    f"search.space='{{{key}: null}}'."
                )

    def check(self, point: Sequence[str]) -> tuple[str, SweepConfig]:
        """A point's folder name and typed config.

        Raises:
            UserError: it cannot run.
        """
        folder, config = self._session.check_point(self._sweep_config, self._given, point)
        self._folders[tuple(point)] = folder
        return folder, cast(SweepConfig, config)

    def launch(self, points: Sequence[Sequence[str]], task: PointTask) -> list[tuple[Any, str]]:
        """Run a task for some points, through the launcher.

        Args:
            points: overrides of each.
            task: of a point's config and folder; picklable.

        Returns:
            For each, what the task returned, or None and the reason why it failed.

        Raises:
            UnfinishedError: a point was not finished.
        """
        folder = Path(self._sweep_config.hydra.sweep.dir)
        names = [self._folders.get(tuple(point)) or self.check(point)[0] for point in points]
        self.launched = [folder / name for name in names]
        lines = [*self._session.lines, *shared_overrides(folder)]
        config = self._session.hydra.compose_config(
            self._session.name, lines, RunMode.MULTIRUN, with_log_configuration=False
        )
        context = HydraContext(config_loader=self._session.hydra.config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=point_job(task, names), config=config
        )
        jobs = [[*self._given, *point] for point in points]
        returned = [job.return_value for job in launcher.launch(jobs, initial_job_idx=self._jobs)]
        self._jobs += len(jobs)
        failed = self.unfinished()
        causes = {point.folder: point.cause for point in failed}
        if any(point.traceback is None for point in failed):
            raise UnfinishedError
        return [(value, causes.get(path, "")) for path, value in zip(self.launched, returned, strict=True)]

    def unfinished(self) -> list[FailedPoint]:
        """The points of the last launch without a result."""
        return [point for point in map(failed_point, self.launched) if point is not None]
