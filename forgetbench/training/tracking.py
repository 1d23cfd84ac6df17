"""Send the numbers of train.csv to an experiment tracker as well, through accelerate's trackers.

Accounts and addresses are those of the tracker's own environment variables (WANDB_API_KEY, MLFLOW_TRACKING_URI, ...).
A resumed run goes on in the tracker's same run, after the steps that an earlier process had written to train.csv: the
steps in between are made again to the same values.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from forgetbench.config import Tracker
from forgetbench.core.errors import UserError
from forgetbench.core.nested import leaves

PROJECT = "forgetbench"
"""What trackers call all runs together, unless their environment variable says otherwise."""


class Tracked:
    """A run's connection to its tracker; one that breaks is named once and left alone, and training goes on."""

    def __init__(self, tracker: Any, sent: int) -> None:
        """Take a started tracker of accelerate, or None for no tracker at all.

        Args:
            tracker: a `GeneralTracker`.
            sent: the last step that it has.
        """
        self._tracker, self._sent = tracker, sent

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send a step's numbers, unless the tracker has them."""
        if step > self._sent:
            self._try(lambda tracker: tracker.log(dict(numbers), step=step))

    def finish(self) -> None:
        """Let the tracker send what it still holds."""
        self._try(lambda tracker: tracker.finish())

    def _try(self, action: Callable[[Any], object]) -> None:
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except Exception as error:  # a tracker's network must not cost a run, whatever it raises
            name, self._tracker = self._tracker.name, None
            print(f"tracker={name} failed and gets no more: {error}\ntrain.csv has every step.", file=sys.stderr)


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
    connection = Tracked(started, sent)
    try:
        yield connection
    finally:
        connection.finish()


def _start(tracker: Tracker, folder: Path) -> Any:
    """Start accelerate's tracker, on the run that an earlier process began if there is one."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    name = folder.resolve().name
    # Not the name alone: a run deleted and made anew with other settings is another one.
    identity = hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()[:16]
    settings: dict[Tracker, Callable[[], dict[str, Any]]] = {
        Tracker.tensorboard: lambda: {"run_name": "tensorboard", "logging_dir": str(folder)},
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
