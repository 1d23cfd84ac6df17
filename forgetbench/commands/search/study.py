"""The points of a search, in a study file of Optuna's: one line of JSON for whatever happened, nothing pickled.

A point is drawn with a sampler of its own, seeded with its number, from what is known of the generations before it. So
the same points are drawn again after a kill, and whatever ran at the same time.
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
from forgetbench.core.nested import differing
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
    """One look at a point."""

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
    """What is known of all points."""

    def __init__(self, path: Path, settings: Mapping[str, Any] | None, seed: int, startup: int) -> None:
        """Open a study file, or begin one.

        Args:
            path: of the file.
            settings: what decides which points are drawn; a file of others is refused. None: those of the file.
            seed: of what is drawn.
            startup: so many points are drawn at random before any is learned from.

        Raises:
            UserError: the file is of another search, or damaged.
        """
        self._seed, self._startup = seed, startup
        self._storage = _storage(path)
        self._study = _opened(self._storage, path)
        self._study.sampler = _sampler(seed, 0, startup)
        before = self._study.user_attrs.get(_SETTINGS)
        if settings is None:
            return
        if before is None:
            self._set(_SETTINGS, dict(settings))
        elif found := sorted(differing(before, dict(settings))):
            raise UserError(
                f"{path.parent} holds a search with other settings: {', '.join(found)}. Give this one another "
                "name=..., or repeat the command of that one; only its budget may change."
            )
        for trial in self._trials():
            if trial.state.name == "RUNNING":
                self._repair(trial)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which points are drawn."""
        return dict(self._study.user_attrs.get(_SETTINGS, {}))

    @property
    def asked(self) -> int:
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
        self._set(_ASKED, self.asked + 1)

    def points(self) -> list[Point]:
        """All points, in the order in which they were drawn."""
        tests = self._study.user_attrs
        drawn = filter(_is_drawn, self._trials())
        return [_point(number, trial, tests.get(f"{_TEST}{trial.number}")) for number, trial in enumerate(drawn)]

    @contextmanager
    def drawn(self, space: Sequence[Dimension]) -> Iterator[_Draft]:
        """A new point; it counts once `_Draft.keep` was called."""
        number = len(self.points())
        self._study.sampler = _sampler(self._seed, number, self._startup)
        with _quiet():
            trial = self._study.ask()
            yield _Draft(self._study, trial, tuple(overrides(space, lambda one: _suggested(trial, one))))

    def record(self, point: Point, rung: int, found: Rung, trained: int) -> None:
        """Keep what was measured of a point."""
        content = {"step": found.step, "trained": trained, **found.objectives.content}
        self._set_trial(point.trial, f"{_RUNG}{rung}", content)

    def record_test(self, point: Point, found: Objectives) -> None:
        """Keep what was measured on the test's items."""
        self._set(f"{_TEST}{point.trial}", found.content)  # of the study: its trial has ended

    def finish(self, point: Point, end: End, trained: int = 0) -> None:
        """Let a point end."""
        self._set_trial(point.trial, _END, {"how": end.how, "why": end.why, "trained": trained})
        _tell(self._study, self._trials()[point.trial])

    def _repair(self, trial: FrozenTrial) -> None:
        """Finish what a kill cut short: a point that was not all drawn is none."""
        if not _is_drawn(trial):
            self._study.tell(trial.number, state=_fail())
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


class _Draft:
    """A point that is being drawn."""

    def __init__(self, study: OptunaStudy, trial: Trial, found: tuple[str, ...]) -> None:
        self._study, self._trial, self.overrides = study, trial, found

    def keep(self, generation: int, folder: str, steps: int, end: End | None) -> None:
        """Let it count.

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
    with _quiet(), reading(path):
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))


def _opened(storage: JournalStorage, path: Path) -> OptunaStudy:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _quiet(), reading(path):
        return optuna.create_study(
            storage=storage, study_name=_NAME, directions=["maximize", "maximize"], load_if_exists=True
        )


def _drop_cut_line(path: Path) -> None:
    """Take off a last line that a kill cut short; another would be written behind it."""
    if not path.is_file():
        return
    with naming(path), path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's notes that some of its settings may change."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _sampler(seed: int, number: int, startup: int) -> Any:
    """Tree-structured Parzen estimators for two objectives (Ozaki et al. 2022), over keys together."""
    from optuna.samplers import TPESampler

    own = int(hashlib.sha256(f"{seed}-{number}".encode()).hexdigest()[:8], 16)
    with _quiet():
        return TPESampler(
            seed=own,
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


def _suggested(trial: Trial, dimension: Dimension) -> Any:
    values = dimension.values
    if not isinstance(values, Range):
        return trial.suggest_categorical(dimension.label, [option.text for option in values])
    if values.kind == "integers":
        return trial.suggest_int(dimension.label, int(values.low), int(values.high))
    return trial.suggest_float(dimension.label, values.low, values.high, log=values.kind == "log")


def _fail() -> TrialState:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _tell(study: OptunaStudy, trial: FrozenTrial) -> None:
    """Tell Optuna how a point ended: one that failed or cannot run is as bad as one that was stopped."""
    from optuna.trial import TrialState

    how = trial.user_attrs[_END]["how"]
    with _quiet():
        if how == "complete":
            study.tell(trial.number, list(_rungs(trial)[-1].objectives.pair))
        else:
            says_nothing = how in ("repeated", "not begun")
            study.tell(trial.number, state=TrialState.FAIL if says_nothing else TrialState.PRUNED)


def _is_drawn(trial: FrozenTrial) -> bool:
    return _POINT in trial.user_attrs


def _rungs(trial: FrozenTrial) -> list[Rung]:
    found, rungs = trial.user_attrs, list[Rung]()
    while (content := found.get(f"{_RUNG}{len(rungs)}")) is not None:
        rungs.append(Rung(content["step"], Objectives.read(content)))
    return rungs


def _point(number: int, trial: FrozenTrial, test: Mapping[str, Any] | None) -> Point:
    found, rungs = trial.user_attrs, _rungs(trial)
    end = found.get(_END)
    trained = [found[f"{_RUNG}{place}"]["trained"] for place in range(len(rungs))]
    return Point(
        number=number,
        generation=found[_POINT]["generation"],
        overrides=tuple(found[_POINT]["overrides"]),
        folder=found[_POINT]["folder"],
        steps=found[_POINT]["steps"],
        rungs=tuple(rungs),
        trained=max([0, *trained, end["trained"] if end else 0]),
        end=End(end["how"], end["why"]) if end else None,
        test=Objectives.read(test) if test else None,
        trial=trial.number,
    )


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that were trained whole and that no other one beats on validation items."""
    complete = [point for point in points if point.is_complete]
    front = pareto_front([point.rungs[-1].objectives.pair for point in complete])
    return [point for point, is_front in zip(complete, front, strict=True) if is_front]
