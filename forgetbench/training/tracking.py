"""Send the numbers of train.csv and the scores to an experiment tracker as well, through accelerate's trackers.

Accounts and addresses come from the tracker's environment variables (WANDB_API_KEY, MLFLOW_TRACKING_URI, ...).
A resumed run continues the same run of the tracker, after the last step that an earlier process wrote to train.csv:
repeated steps have the same values and are not sent again. Scores are sent when a run is scored, at the steps of their
checkpoints, into the same run of the tracker; scores that it has already are not sent again.
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
"""Name of the project in trackers, unless their environment variable sets another."""


SCORE_STEP = f"{SCORES}step"
"""The axis of scores in wandb, where steps of the run can only increase."""
RECORD = "tracked.json"
"""File beside a run's tables: the scores that were sent to trackers that only append."""
_SCORE_FILE = ".scores"
"""Suffix of TensorBoard's files of scores, which are always rewritten."""
_DESTINATIONS = ("WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")
Numbers = Mapping[str, float]


class TrackerConnection:
    """A run's connection to its tracker; a failure is reported once, then nothing more is sent, but the run goes on."""

    def __init__(
        self,
        tracker: Any,
        sent: int,
        for_scores: Callable[[], Any] | None = None,
        record: _SentScores | None = None,
    ) -> None:
        """Take a started tracker of accelerate, or None for no tracker at all.

        Args:
            tracker: a `GeneralTracker`.
            sent: the last training step that the tracker has.
            for_scores: starts a separate tracker for scores; None if `tracker` takes them.
            record: the scores that were sent already, if the tracker only appends.
        """
        self._tracker, self._sent, self._sent_scores = tracker, sent, record
        self._start_scores = for_scores
        self._scores: Any = None if for_scores else tracker

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send the numbers of a step, unless the tracker has them."""
        if step > self._sent:
            self._try(lambda tracker: tracker.log(dict(numbers), step=step))

    def log_scores(self, step: int, numbers: Numbers) -> None:
        """Send the scores of a step, on the axis of training steps, unless the tracker has them.

        Args:
            step: of the checkpoint, 0 for the base; it may be lower than the last step sent.
            numbers: as `tables.tracked` names them.
        """
        new = self._sent_scores.missing({step: numbers}).get(step, {}) if self._sent_scores else numbers
        if new:
            self._try(lambda _: self._send_scores(step, new))
        if new and self._sent_scores and self._tracker is not None:
            self._sent_scores.add(step, new)

    def _send_scores(self, step: int, numbers: Numbers) -> None:
        if self._scores is None and self._start_scores:
            self._scores = self._start_scores()
        if self._scores.name == Tracker.wandb:
            self._scores.tracker.define_metric(f"{SCORES}*", step_metric=SCORE_STEP)
            self._scores.log({**numbers, SCORE_STEP: step})
        else:
            self._scores.log(dict(numbers), step=step)

    def finish(self) -> None:
        """Let the tracker send its remaining data."""
        self._try(lambda tracker: tracker.finish())
        if self._scores is not None and self._start_scores:
            self._try(lambda _: self._scores.finish())

    def _try(self, action: Callable[[Any], object]) -> None:
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except Exception as error:  # an error of the tracker must never end a run
            name, self._tracker = self._tracker.name, None
            kept = "train.csv has every step, and the tables every score."
            print(f"tracker={name} failed and gets no more: {error}\n{kept}", file=sys.stderr)


@contextmanager
def connect_tracker(tracker: Tracker, folder: Path, config: Mapping[str, Any]) -> Iterator[TrackerConnection]:
    """Connect a run to its tracker; call it before train.csv is opened, in one process.

    Args:
        tracker: the kind of tracker.
        folder: of the run, with run.json.
        config: configuration of the run, sent as hyperparameters.

    Raises:
        UserError: the tracker cannot be started.
    """
    if tracker is Tracker.none:
        yield TrackerConnection(None, 0)
        return
    sent = _last_step(folder / "train.csv")
    try:
        started = _start(tracker, folder)
        if not sent:
            started.store_init_configuration({key: _to_scalar(value) for key, value in leaves(config)})
    except Exception as error:
        raise UserError(
            f"tracker={tracker} cannot be started: {error}\n"
            "Check its environment variables (offline, wandb takes WANDB_MODE=offline), or set tracker=none; the run "
            "goes on under the same name."
        ) from error
    connection = TrackerConnection(started, sent, _score_file(tracker, folder), _sent_scores(tracker, folder))
    try:
        yield connection
    finally:
        connection.finish()


def send_scores(tracker: Tracker, folder: Path, numbers: Mapping[int, Numbers]) -> None:
    """Send the scores of a run, or of a base alone, to its tracker; call it in one process, when nothing trains.

    TensorBoard's files are rewritten. Other trackers only append, so the sent scores are stored in `tracked.json`.

    Args:
        tracker: the kind of tracker.
        folder: of the run.
        numbers: step -> name -> number, as `tables.tracked` gives them.

    Raises:
        UserError: the tracker cannot be started.
    """
    if tracker is Tracker.none:
        return
    record = _sent_scores(tracker, folder)
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
    connection = TrackerConnection(started, 0, record=record)
    for step in sorted(new):
        connection.log_scores(step, new[step])
    connection.finish()


class _SentScores:
    """The scores of a run that were sent to a tracker, by its destination."""

    def __init__(self, folder: Path, tracker: Tracker) -> None:
        self._path = folder / RECORD
        destination = "\n".join([_run_identity(folder), *(os.environ.get(name, "") for name in _DESTINATIONS)])
        # A hash: an address may hold a password.
        self._key = f"{tracker} {hashlib.sha256(destination.encode()).hexdigest()[:16]}"
        self._all: dict[str, dict[str, dict[str, float]]] = {}
        if self._path.is_file():
            with reading(self._path, "delete it; then all scores are sent again"):
                self._all = json.loads(self._path.read_text("utf-8"))
                self._sent = dict(self._all.get(self._key, {}))
        else:
            self._sent = {}

    def missing(self, numbers: Mapping[int, Numbers]) -> dict[int, dict[str, float]]:
        """Scores that the tracker lacks, or has with another value."""
        unsent = {
            step: {name: value for name, value in at_step.items() if self._sent.get(str(step), {}).get(name) != value}
            for step, at_step in numbers.items()
        }
        return {step: at_step for step, at_step in unsent.items() if at_step}

    def add(self, step: int, numbers: Numbers) -> None:
        """Store scores as sent."""
        self._sent[str(step)] = {**self._sent.get(str(step), {}), **numbers}
        write_json(self._path, {**self._all, self._key: self._sent})


def _sent_scores(tracker: Tracker, folder: Path) -> _SentScores | None:
    """The scores that were sent to a tracker; None for TensorBoard, whose file of scores is rewritten."""
    return None if tracker is Tracker.tensorboard else _SentScores(folder, tracker)


def _score_file(tracker: Tracker, folder: Path) -> Callable[[], Any] | None:
    """A function that starts TensorBoard's file of scores; None for other trackers, which need no separate place."""
    return partial(_start, tracker, folder, _SCORE_FILE) if tracker is Tracker.tensorboard else None


def _run_identity(folder: Path) -> str:
    """Digest that identifies a run: a run of the same name with other settings has another one."""
    described = folder / "run.json"
    content = described.read_bytes() if described.is_file() else folder.resolve().name.encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _start(tracker: Tracker, folder: Path, suffix: str = "") -> Any:
    """Start accelerate's tracker; it continues the run of an earlier process if there is one."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    name, identity = folder.resolve().name, _run_identity(folder)
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
    """MLflow's id of the run; None if MLflow does not know it yet."""
    mlflow = import_module("mlflow")  # an optional dependency: no types
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    runs = mlflow.search_runs(
        experiment_names=[experiment], filter_string=f"tags.{PROJECT} = '{identity}'", output_format="list"
    )
    return str(runs[0].info.run_id) if runs else None


def _last_step(log: Path) -> int:
    """The last step in train.csv; 0 without one. A line that a kill cut short does not count."""
    if not log.is_file():
        return 0
    with log.open(newline="") as file:
        rows = list(csv.reader(file))
    steps = [int(row[0]) for row in rows[1:] if len(row) == len(rows[0])]
    return max(steps, default=0)


def _to_scalar(value: Any) -> str | int | float | bool:
    """A value as a type that every tracker takes."""
    return value if isinstance(value, str | int | float | bool) else str(value)
