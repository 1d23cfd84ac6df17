"""The points of a search, in a study file of Optuna's: one line of JSON per event, nothing pickled.

Each point is drawn by a fresh sampler that is seeded with the point's number and knows the earlier generations only. So
the same points are drawn again after a kill, whatever runs at the same time.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.commands.search.objectives import Objectives
from forgetbench.config.space import Dimension, Range, overrides
from forgetbench.core.errors import UserError, reading
from forgetbench.core.files import naming
from forgetbench.core.nested import differing_keys
from forgetbench.statistics.pareto import pareto_front

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial, Trial, TrialState

FILE = "study.log"
_POINT, _RUNG, _END, _TEST = "point", "rung_", "end", "test_"
_SETTINGS, _ASKED, _SECONDS = "settings", "asked", "seconds"
_NAME = "forgetbench"


@dataclass(frozen=True)
class Rung:
    """The score of a point at one rung."""

    step: int
    """Of the checkpoint that was scored."""
    objectives: Objectives


@dataclass(frozen=True)
class End:
    """What became of a point."""

    how: str
    """`complete`, `stopped` (others were better), `over budget` (its guard's), `failed`, `refused`, `repeated`, or
    `not begun` (the search's budget was spent)."""
    why: str = ""


@dataclass(frozen=True)
class Point:
    """One point of a search."""

    number: int
    generation: int
    overrides: tuple[str, ...]
    folder: str
    """Its name, in the sweep's folder; empty if it was never begun."""
    steps: int
    """Of the whole training."""
    rungs: tuple[Rung, ...]
    trained: int
    """Steps that were trained so far."""
    end: End | None
    """None as long as it goes on."""
    test: Objectives | None
    """On the test's items, of a point that was on the front."""
    trial: int
    """Its number in the study file."""

    @property
    def is_complete(self) -> bool:
        """Whether it was trained whole."""
        return self.end is not None and self.end.how == "complete"


def read_study(path: Path) -> tuple[dict[str, Any], list[Point]]:
    """The settings and the points of a search that is not running."""
    study = Study(path, None, 0, 0)
    return study.settings, study.points()


class Study:
    """All points of a search, in Optuna's study file."""

    def __init__(self, path: Path, settings: Mapping[str, Any] | None, seed: int, startup: int) -> None:
        """Open a study file, or begin one.

        Args:
            path: of the file.
            settings: decide which points are drawn; a file with other settings is refused. None: take the file's.
            seed: of what is drawn.
            startup: how many points are drawn at random first.

        Raises:
            UserError: the file is of another search, or damaged.
        """
        self._seed, self._startup = seed, startup
        self._storage = _storage(path)
        self._study = _load_study(self._storage, path)
        self._study.sampler = _sampler(seed, 0, startup)
        before = self._study.user_attrs.get(_SETTINGS)
        if settings is None:
            return
        if before is None:
            self._set(_SETTINGS, dict(settings))
        elif changed_keys := sorted(differing_keys(before, dict(settings))):
            raise UserError(
                f"{path.parent} holds a search with other settings: {', '.join(changed_keys)}. Give this one another "
                "name=..., or repeat the command of that one; only its budget may change."
            )
        for trial in self._trials():
            if trial.state.name == "RUNNING":
                self._repair(trial)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide which points are drawn."""
        return dict(self._study.user_attrs.get(_SETTINGS, {}))

    @property
    def n_generations(self) -> int:
        """Generations whose points are all drawn."""
        return int(self._study.user_attrs.get(_ASKED, 0))

    @property
    def seconds(self) -> float:
        """What launches took so far."""
        return float(self._study.user_attrs.get(_SECONDS, 0.0))

    def add_seconds(self, seconds: float) -> None:
        """Count the time of a launch."""
        self._set(_SECONDS, self.seconds + seconds)

    def close_generation(self) -> None:
        """All points of the generation are drawn."""
        self._set(_ASKED, self.n_generations + 1)

    def points(self) -> list[Point]:
        """All points, in the order in which they were drawn."""
        tests = self._study.user_attrs
        drawn = filter(_is_drawn, self._trials())
        return [_point(number, trial, tests.get(f"{_TEST}{trial.number}")) for number, trial in enumerate(drawn)]

    @contextmanager
    def draft_point(self, space: Sequence[Dimension]) -> Iterator[_PointDraft]:
        """A new point; it counts once `_PointDraft.save` was called."""
        number = len(self.points())
        self._study.sampler = _sampler(self._seed, number, self._startup)
        with _without_warnings():
            trial = self._study.ask()
            yield _PointDraft(self._study, trial, tuple(overrides(space, lambda dimension: _suggest(trial, dimension))))

    def record(self, point: Point, rung: int, measured: Rung, trained: int) -> None:
        """Keep what was measured of a point."""
        content = {"step": measured.step, "trained": trained, **measured.objectives.content}
        self._set_trial(point.trial, f"{_RUNG}{rung}", content)

    def record_test(self, point: Point, objectives: Objectives) -> None:
        """Keep what was measured on the test's items."""
        self._set(f"{_TEST}{point.trial}", objectives.content)  # of the study: its trial has ended

    def finish(self, point: Point, end: End, trained: int = 0) -> None:
        """Record how a point ended."""
        self._set_trial(point.trial, _END, {"how": end.how, "why": end.why, "trained": trained})
        _tell(self._study, self._trials()[point.trial])

    def _repair(self, trial: FrozenTrial) -> None:
        """Finish what a kill cut short: a point that was only partly drawn is dropped."""
        if not _is_drawn(trial):
            self._study.tell(trial.number, state=_failed_state())
        elif _END in trial.user_attrs:
            _tell(self._study, trial)

    def _trials(self) -> list[FrozenTrial]:
        return list(self._study.get_trials(deepcopy=False))

    def _set(self, key: str, value: Any) -> None:
        self._study.set_user_attr(key, value)

    def _set_trial(self, number: int, key: str, value: Any) -> None:
        study = self._storage.get_study_id_from_name(_NAME)
        trial = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        self._storage.set_trial_user_attr(trial, key, value)


class _PointDraft:
    """A point that is being drawn."""

    def __init__(self, study: OptunaStudy, trial: Trial, point_overrides: tuple[str, ...]) -> None:
        self._study, self._trial, self.overrides = study, trial, point_overrides

    def save(self, generation: int, folder: str, steps: int, end: End | None) -> None:
        """Add the point to the study.

        Args:
            generation: that it belongs to.
            folder: its name.
            steps: of the whole training.
            end: of a point that is not to be trained.
        """
        content = {"generation": generation, "overrides": list(self.overrides), "folder": folder, "steps": steps}
        if end:
            self._trial.set_user_attr(_END, {"how": end.how, "why": end.why, "trained": 0})
        self._trial.set_user_attr(_POINT, content)  # last: from here on it is a point
        if end:
            _tell(self._study, self._study.get_trials(deepcopy=False)[self._trial.number])


def _storage(path: Path) -> JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_cut_line(path)
    Path(f"{path}.lock").unlink(missing_ok=True)  # of a killed process: this one holds the sweep's folder
    with _without_warnings(), reading(path):
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))


def _load_study(storage: JournalStorage, path: Path) -> OptunaStudy:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _without_warnings(), reading(path):
        return optuna.create_study(
            storage=storage, study_name=_NAME, directions=["maximize", "maximize"], load_if_exists=True
        )


def _drop_cut_line(path: Path) -> None:
    """Take off a last line that a kill cut short; another would be written behind it."""
    if not path.is_file():
        return
    with naming(path), path.open("rb+") as file:
        content = file.read()
        n_complete = content.rfind(b"\n") + 1
        if n_complete < len(content):
            file.truncate(n_complete)
            os.fsync(file.fileno())


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Ignore Optuna's warnings that some of its settings are experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _sampler(seed: int, number: int, startup: int) -> Any:
    """Tree-structured Parzen estimators for two objectives (Ozaki et al. 2022), over keys together."""
    from optuna.samplers import TPESampler

    point_seed = int(hashlib.sha256(f"{seed}-{number}".encode()).hexdigest()[:8], 16)
    with _without_warnings():
        return TPESampler(
            seed=point_seed,
            n_startup_trials=startup,
            multivariate=True,
            group=True,
            constant_liar=True,
            constraints_func=_shortfall,
        )


def _shortfall(trial: FrozenTrial) -> tuple[float]:
    """0 for a point that was trained whole; else more than 0, the more the sooner it ended.

    Optuna learns from points without values in this way alone where there are two objectives.
    """
    is_complete = trial.user_attrs[_END]["how"] == "complete"
    return (0.0 if is_complete else 1 / (1 + len(_rungs(trial))),)


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    values = dimension.values
    if not isinstance(values, Range):
        return trial.suggest_categorical(dimension.label, [option.text for option in values])
    if values.kind == "integers":
        return trial.suggest_int(dimension.label, int(values.low), int(values.high))
    return trial.suggest_float(dimension.label, values.low, values.high, log=values.kind == "log")


def _failed_state() -> TrialState:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _tell(study: OptunaStudy, trial: FrozenTrial) -> None:
    """Tell Optuna how a point ended: one that failed or cannot run is as bad as one that was stopped."""
    from optuna.trial import TrialState

    how = trial.user_attrs[_END]["how"]
    with _without_warnings():
        if how == "complete":
            study.tell(trial.number, list(_rungs(trial)[-1].objectives.pair))
        else:
            says_nothing = how in ("repeated", "not begun")
            study.tell(trial.number, state=TrialState.FAIL if says_nothing else TrialState.PRUNED)


def _is_drawn(trial: FrozenTrial) -> bool:
    return _POINT in trial.user_attrs


def _rungs(trial: FrozenTrial) -> list[Rung]:
    attributes, rungs = trial.user_attrs, list[Rung]()
    while (content := attributes.get(f"{_RUNG}{len(rungs)}")) is not None:
        rungs.append(Rung(content["step"], Objectives.read(content)))
    return rungs


def _point(number: int, trial: FrozenTrial, test: Mapping[str, Any] | None) -> Point:
    attributes, rungs = trial.user_attrs, _rungs(trial)
    end = attributes.get(_END)
    trained = [attributes[f"{_RUNG}{place}"]["trained"] for place in range(len(rungs))]
    return Point(
        number=number,
        generation=attributes[_POINT]["generation"],
        overrides=tuple(attributes[_POINT]["overrides"]),
        folder=attributes[_POINT]["folder"],
        steps=attributes[_POINT]["steps"],
        rungs=tuple(rungs),
        trained=max([0, *trained, end["trained"] if end else 0]),
        end=End(end["how"], end["why"]) if end else None,
        test=Objectives.read(test) if test else None,
        trial=trial.number,
    )


def pareto_points(points: Sequence[Point]) -> list[Point]:
    """Fully trained points that no other point beats on validation items."""
    complete = [point for point in points if point.is_complete]
    front = pareto_front([point.rungs[-1].objectives.pair for point in complete])
    return [point for point, is_front in zip(complete, front, strict=True) if is_front]
