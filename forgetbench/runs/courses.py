"""Runs through a sequence of tasks, read back from their stored answers, by strategy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd

from forgetbench.config import FinetuneConfig, Training
from forgetbench.config.result import deciding
from forgetbench.runs.stored import StoredRun
from forgetbench.tables.continual import JOINED
from forgetbench.tables.continual_run import ContinualRun, continual_run
from forgetbench.tables.last import as_trained, last_step_of_stages

TABLE = "continual.csv"
"""Of a run."""
STRATEGIES = "strategies.csv"
"""Of a sweep."""


def tasks_of(run: StoredRun) -> list[str]:
    """The target set of every stage, in order; of a base model alone, those that its table names."""
    if run.run is not None:
        return run.run.config.data.tasks
    table = run.table(TABLE)
    return [] if table.empty else str(table["tasks"].iloc[0]).split(JOINED)


def strategy_names(runs: Sequence[StoredRun]) -> list[str]:
    """What each run's way of learning task after task is called: as its configuration says, else as its recipe.

    Where runs of one name differ in more than task order and seed, the name says in what.
    """
    names, settings = [_strategy(run) for run in runs], [_settings(run) for run in runs]
    kinds: dict[str, list[Mapping[str, object]]] = defaultdict(list)
    for name, one in zip(names, settings, strict=True):
        kinds[name].append(one)
    return [_unique_name(name, one, kinds[name]) for name, one in zip(names, settings, strict=True)]


def _strategy(run: StoredRun) -> str:
    if run.run is not None:
        return run.run.config.strategy or run.recipe
    table = run.table(TABLE)
    return run.recipe if table.empty else str(table["strategy"].iloc[0])


def _settings(run: StoredRun) -> dict[str, object]:
    """Every key that makes a run of a strategy another way of it."""
    if run.run is None:
        return {}
    settings = deciding(FinetuneConfig, run.run.settings)
    groups = {name: group for name, group in settings.items() if isinstance(group, Mapping)}
    data = {key: value for key, value in groups["data"].items() if key != "stages"}
    return {f"{name}.{key}": value for name, group in (groups | {"data": data}).items() for key, value in group.items()}


def _unique_name(name: str, one: Mapping[str, object], ways: Sequence[Mapping[str, object]]) -> str:
    differing = [key for key, value in one.items() if any(way.get(key) != value for way in ways)]
    settings = ", ".join(f"{key.rpartition('.')[2]}={one[key]}" for key in differing)
    return f"{name} ({settings})" if settings else name


def training_of(run: StoredRun) -> Training:
    """Whether its tasks were trained one after the other, jointly or not at all."""
    return run.run.config.data.training if run.run else Training.none


def is_continual(run: StoredRun) -> bool:
    """Whether it is about several tasks."""
    return len(tasks_of(run)) > 1


def continual_table(run: StoredRun) -> pd.DataFrame:
    """continual.csv with the strategy as `strategy_names` calls it; empty for a run of one task."""
    table = run.table(TABLE) if is_continual(run) else pd.DataFrame()
    return table.assign(strategy=run.strategy) if len(table) else table


def courses(runs: Sequence[StoredRun]) -> dict[str, list[ContinualRun]]:
    """The scored runs of several tasks, by strategy.

    Raises:
        UserError: answers are gone.
    """
    found: dict[str, list[ContinualRun]] = defaultdict(list)
    for run in runs:
        tasks = tasks_of(run)
        if len(tasks) > 1 and not run.scores.empty:
            one = continual_run(run.views(_needed(run, tasks)), tasks, run.strategy, training_of(run))
            if one is not None:
                found[run.strategy].append(one)
    return dict(found)


def _needed(run: StoredRun, tasks: Sequence[str]) -> pd.DataFrame:
    """Rows of the tasks at the last step of each stage, as trained."""
    last = last_step_of_stages(as_trained(run.own_metrics()))
    return last[last["dataset"].isin(list(tasks))]
