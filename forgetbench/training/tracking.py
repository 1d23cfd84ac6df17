"""Send the numbers of train.csv and the scores to an experiment tracker as well, through accelerate's trackers.

Accounts and addresses are those of the tracker's own environment variables (WANDB_API_KEY, MLFLOW_TRACKING_URI, ...).
A resumed run goes on in the tracker's same run, after the steps that an earlier process had written to train.csv: the
steps in between are made again to the same values. Scores are sent when a run is scored, at the steps of their
checkpoints, into the same run of the tracker; those that it has are not sent again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from forgetbench.config import Tracker
from forgetbench.core.errors import UserError, reading
from forgetbench.core.files import write_json
from forgetbench.core.nested import leaves
from forgetbench.core.shell import argument
from forgetbench.tables.tracked import SCORES

PROJECT = "forgetbench"
"""What trackers call all runs together, unless their environment variable says otherwise."""


SCORE_STEP = f"{SCORES}step"
"""The axis of scores in wandb, whose own steps only go up."""
RECORD = "tracked.json"
"""Beside a run's tables: the scores that trackers have which only append."""
_SCORE_FILE = ".scores"
"""How TensorBoard's files of scores end, which are written anew."""
_DESTINATIONS = ("WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")
Numbers = Mapping[str, float]


class Tracked:
    """A run's connection to its tracker; one that breaks is named once and left alone, and the command goes on."""

    def __init__(
        self,
        tracker: Any,
        sent: int,
        for_scores: Callable[[], Any] | None = None,
        record: _Record | None = None,
    ) -> None:
        """Take a started tracker of accelerate, or None for no tracker at all.

        Args:
            tracker: a `GeneralTracker`.
            sent: the last step of training that it has.
            for_scores: starts the one that takes scores, if it is another.
            record: of the scores that it has, if it only appends.
        """
        self._tracker, self._sent, self._record = tracker, sent, record
        self._start_scores = for_scores
        self._scores: Any = None if for_scores else tracker

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send a step's numbers, unless the tracker has them."""
        if step > self._sent:
            self._try(lambda tracker: tracker.log(dict(numbers), step=step))

    def log_scores(self, step: int, numbers: Numbers) -> None:
        """Send what was scored at a step, on the axis of training, unless the tracker has it.

        Args:
            step: of the checkpoint, 0 for the base; it may be an earlier one than the last.
            numbers: as `tables.tracked` names them.
        """
        new = self._record.missing({step: numbers}).get(step, {}) if self._record else numbers
        if new:
            self._try(lambda _: self._send_scores(step, new))
        if new and self._record and self._tracker is not None:
            self._record.add(step, new)

    def _send_scores(self, step: int, numbers: Numbers) -> None:
        if self._scores is None and self._start_scores:
            self._scores = self._start_scores()
        if self._scores.name == Tracker.wandb:
            self._scores.tracker.define_metric(f"{SCORES}*", step_metric=SCORE_STEP)
            self._scores.log({**numbers, SCORE_STEP: step})
        else:
            self._scores.log(dict(numbers), step=step)

    def finish(self) -> None:
        """Let the tracker send what it still holds."""
        self._try(lambda tracker: tracker.finish())
        if self._scores is not None and self._start_scores:
            self._try(lambda _: self._scores.finish())

    def _try(self, action: Callable[[Any], object]) -> None:
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except Exception as error:  # a tracker's network must not cost a run, whatever it raises
            name, self._tracker = self._tracker.name, None
            kept = "train.csv has every step, and the tables every score."
            print(f"tracker={name} failed and gets no more: {error}\n{kept}", file=sys.stderr)


@contextmanager
def tracked(tracker: Tracker, folder: Path, config: Mapping[str, Any]) -> Iterator[Tracked]:
    """Connect a run to its tracker; call it before train.csv is opened, in one process.

    Args:
        tracker: which one.
        folder: the run's, with run.json.
        config: the run's configuration, sent as its hyperparameters.

    Raises:
        UserError: the tracker cannot be started.
    """
    if tracker is Tracker.none:
        yield Tracked(None, 0)
        return
    sent = _last_step(folder / "train.csv")
    try:
        started = _start(tracker, folder)
        if not sent:
            started.store_init_configuration({key: _simple(value) for key, value in leaves(config)})
    except Exception as error:
        raise UserError(
            f"tracker={tracker} cannot be started: {error}\n"
            "Check its environment variables (offline, wandb takes WANDB_MODE=offline), or set tracker=none; the run "
            "goes on under the same name."
        ) from error
    connection = Tracked(started, sent, _score_file(tracker, folder), _record(tracker, folder))
    try:
        yield connection
    finally:
        connection.finish()


def send_scores(tracker: Tracker, folder: Path, numbers: Mapping[int, Numbers]) -> None:
    """Send the scores of a run, or of a base alone, to its tracker; call it in one process, when nothing trains.

    TensorBoard's are written anew. Other trackers only append, so what they have is noted in `tracked.json`.

    Args:
        tracker: which one.
        folder: the run's.
        numbers: step -> name -> number, as `tables.tracked` gives them.

    Raises:
        UserError: the tracker cannot be started.
    """
    if tracker is Tracker.none:
        return
    record = _record(tracker, folder)
    if record is None:
        for file in (folder / "tensorboard").glob(f"events.out.tfevents.*{_SCORE_FILE}"):
            file.unlink()
    new = record.missing(numbers) if record else numbers
    if not new:
        return
    try:
        started = (_score_file(tracker, folder) or partial(_start, tracker, folder))()
    except Exception as error:
        raise UserError(
            f"tracker={tracker} cannot be started: {error}\n"
            "Check its environment variables (offline, wandb takes WANDB_MODE=offline). The tables are written: "
            f"`forgetbench score {argument('run', folder)} tracker={tracker}` sends them."
        ) from error
    connection = Tracked(started, 0, record=record)
    for step in sorted(new):
        connection.log_scores(step, new[step])
    connection.finish()


class _Record:
    """The scores that a tracker has of a run, by where it keeps them."""

    def __init__(self, folder: Path, tracker: Tracker) -> None:
        self._path = folder / RECORD
        place = "\n".join([_identity(folder), *(os.environ.get(name, "") for name in _DESTINATIONS)])
        # A hash: an address may hold a password.
        self._key = f"{tracker} {hashlib.sha256(place.encode()).hexdigest()[:16]}"
        self._all: dict[str, dict[str, dict[str, float]]] = {}
        if self._path.is_file():
            with reading(self._path, "delete it; then all scores are sent again"):
                self._all = json.loads(self._path.read_text("utf-8"))
                self._sent = dict(self._all.get(self._key, {}))
        else:
            self._sent = {}

    def missing(self, numbers: Mapping[int, Numbers]) -> dict[int, dict[str, float]]:
        """What the tracker does not have, or has with another value."""
        found = {
            step: {name: value for name, value in own.items() if self._sent.get(str(step), {}).get(name) != value}
            for step, own in numbers.items()
        }
        return {step: own for step, own in found.items() if own}

    def add(self, step: int, numbers: Numbers) -> None:
        """Keep what was taken, for the next time."""
        self._sent[str(step)] = {**self._sent.get(str(step), {}), **numbers}
        write_json(self._path, {**self._all, self._key: self._sent})


def _record(tracker: Tracker, folder: Path) -> _Record | None:
    """What a tracker has of a run's scores; None for TensorBoard, whose file of scores is written anew."""
    return None if tracker is Tracker.tensorboard else _Record(folder, tracker)


def _score_file(tracker: Tracker, folder: Path) -> Callable[[], Any] | None:
    """What starts TensorBoard's file of scores; None for other trackers, which have one place for all."""
    return partial(_start, tracker, folder, _SCORE_FILE) if tracker is Tracker.tensorboard else None


def _identity(folder: Path) -> str:
    """What tells a run from others of its name: deleted and made anew with other settings, it is another one."""
    described = folder / "run.json"
    own = described.read_bytes() if described.is_file() else folder.resolve().name.encode()
    return hashlib.sha256(own).hexdigest()[:16]


def _start(tracker: Tracker, folder: Path, suffix: str = "") -> Any:
    """Start accelerate's tracker, on the run that an earlier process began if there is one."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    name, identity = folder.resolve().name, _identity(folder)
    settings: dict[Tracker, Callable[[], dict[str, Any]]] = {
        Tracker.tensorboard: lambda: {
            "run_name": "tensorboard",
            "logging_dir": str(folder),
            "filename_suffix": suffix,
        },
        Tracker.trackio: lambda: {"run_name": PROJECT, "name": f"{name}-{identity[:6]}", "resume": "allow"},
        Tracker.wandb: lambda: {
            "run_name": os.environ.get("WANDB_PROJECT", PROJECT),
            "name": name,
            "id": identity,
            "resume": "allow",
            "dir": str(folder),
        },
        Tracker.mlflow: lambda: {
            "experiment_name": PROJECT,
            "run_name": name,
            "run_id": _mlflow_run(identity),
            "tags": {PROJECT: identity},
        },
    }
    started = LOGGER_TYPE_TO_CLASS[tracker.value](**settings[tracker]())
    started.start()
    return started


def _mlflow_run(identity: str) -> str | None:
    """The id that MLflow gave the run when it was begun."""
    mlflow = import_module("mlflow")  # installed by who wants it, so nothing is known of its types
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    found = mlflow.search_runs(
        experiment_names=[experiment], filter_string=f"tags.{PROJECT} = '{identity}'", output_format="list"
    )
    return str(found[0].info.run_id) if found else None


def _last_step(log: Path) -> int:
    """The last step in train.csv; 0 without one. A line that a kill cut short does not count."""
    if not log.is_file():
        return 0
    with log.open(newline="") as file:
        rows = list(csv.reader(file))
    steps = [int(row[0]) for row in rows[1:] if len(row) == len(rows[0])]
    return max(steps, default=0)


def _simple(value: Any) -> str | int | float | bool:
    """A value of a kind that every tracker takes."""
    return value if isinstance(value, str | int | float | bool) else str(value)
