"""strategies.csv: ways of learning task after task side by side, over their task orders and seeds.

Every run is a draw of the second level of error, as seeds are in `over_seeds`; items are the first. Task orders differ
in the position of a task and not in the tasks, so items are sorted by task name before runs are compared.

Legend: N items of all the tasks together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from forgetbench.config import Training
from forgetbench.core.records import Decoding
from forgetbench.statistics.bounds import Limits, limits_of_difference
from forgetbench.statistics.seeds import SeedEstimate, over_seeds
from forgetbench.statistics.significance import holm, t_test_p
from forgetbench.statistics.strata import Floats
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.continual_run import MEASURES, ContinualRun, estimate_pool, item_layout

SIMPLE = ("seq_full", "inc_lora", "hybrid", "replay")
"""The simple strategies of the 2x2 paper (arXiv:2603.14493); others are compared with the best of them."""
_DIFF = ("diff", "diff_stderr", "diff_ci_low", "diff_ci_high")
STRATEGY_COLUMNS = (
    "strategy", "training", "decoding", "measure", "metric", "n_tasks", "n_runs", "n_orders", "n_seeds", "value",
    "item_stderr", "run_sd", "stderr", "ci_low", "ci_high", "reference", *_DIFF, "p_value", "p_holm",
)  # fmt: skip
_INTEGERS = ("n_tasks", "n_runs", "n_orders", "n_seeds")
_FLOATS = ("value", "item_stderr", "run_sd", "stderr", "ci_low", "ci_high", *_DIFF, "p_value", "p_holm")


@dataclass(frozen=True)
class _MeasureByRun:
    """A measure of a strategy: the contribution of the items of each task, run by run."""

    runs: Sequence[ContinualRun]
    values: Sequence[Mapping[str, Floats]]
    reference_cells: Mapping[str, CellView]

    @property
    def training(self) -> Training:
        return self.runs[0].training

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks that count in any run; which task is the last depends on the order."""
        return sorted({task for task_values in self.values for task in task_values})

    def stacked(self, tasks: Sequence[str]) -> list[Floats]:
        """N values of each run; 0 where its order leaves a task out, the others counting for more."""
        return [
            np.concatenate([self._task_part(task_values, task, len(tasks)) for task in tasks])
            for task_values in self.values
        ]

    def _task_part(self, task_values: Mapping[str, Floats], task: str, n_tasks: int) -> Floats:
        return (
            task_values[task] * (n_tasks / len(task_values))
            if task in task_values
            else np.zeros(len(self.reference_cells[task].frame))
        )


def strategy_rows(runs: Mapping[str, Sequence[ContinualRun]], reference: str | None = None) -> pd.DataFrame:
    """A row per strategy, decoding and measure, and how it differs from a reference on the same items.

    `item_stderr` is of these runs on other items, `run_sd` between runs (task orders and seeds) on these items, and the
    interval holds both; a single run has the interval of continual.csv. A run without the measure is left out, and
    `n_runs` says how many are not.

    `diff` is the strategy minus the reference, run by run with the same order and seed. A joint run has no order: it is
    compared with the mean over orders of the runs with the same seed, the untrained base with every run. `p_value` is
    of its t test, `p_holm` adjusts over the strategies within a measure, and over every pair that was looked at if the
    reference was chosen by its scores. Strategies whose orders, seeds or items differ are not compared.

    Args:
        runs: strategy -> its runs.
        reference: a strategy; by default the one of SIMPLE (of all, without any of these) with the highest MFN.
    """
    candidates = [reference] if reference is not None else _candidates(runs)
    reference_name = reference if reference is not None else _best_strategy(runs, candidates)
    rows: list[dict[str, object]] = []
    for decoding in _decodings(runs):
        for measure in MEASURES:
            by_strategy = {
                name: measured
                for name, strategy_runs in runs.items()
                if (measured := _measure_by_run(strategy_runs, measure, decoding, None))
            }
            rows += _measure_rows(
                by_strategy, measure, decoding, reference_name, len(by_strategy.keys() & set(candidates))
            )
    frame = pd.DataFrame(rows, columns=list(STRATEGY_COLUMNS))
    return frame.astype(dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_FLOATS, "Float64"))


def _decodings(runs: Mapping[str, Sequence[ContinualRun]]) -> list[str]:
    return sorted({decoding for strategy_runs in runs.values() for run in strategy_runs for decoding in run.decodings})


def _candidates(runs: Mapping[str, Sequence[ContinualRun]]) -> list[str]:
    """The strategies that may be the reference; upper and lower bounds may not."""
    trained = [
        name for name, strategy_runs in runs.items() if strategy_runs and strategy_runs[0].training is Training.sequence
    ]
    return [name for name in trained if name in SIMPLE] or trained


def _best_strategy(runs: Mapping[str, Sequence[ContinualRun]], names: Sequence[str]) -> str:
    """The strategy with the highest MFN, in the decoding `choice` if there is any; empty without runs."""
    decodings = _decodings(runs)
    decoding = Decoding.choice.value if Decoding.choice in decodings else next(iter(decodings), "")
    values = {}
    for name in sorted(names):
        if measured := _measure_by_run(runs[name], "MFN", decoding, None):
            values[name] = _estimate(measured, "MFN", decoding).value or 0.0
    return max(values, key=lambda name: values[name], default="")


def _measure_by_run(
    runs: Sequence[ContinualRun], measure: str, decoding: str, reference_cells: Mapping[str, CellView] | None
) -> _MeasureByRun | None:
    """Collect a measure; None if no run has it on these items, or runs differ in their tasks."""
    if reference_cells is None:
        reference_cells = {task: cell for run in reversed(runs) for task, cell in run.reference_cells(decoding).items()}
    runs = sorted(runs, key=lambda run: (run.tasks, run.seed or 0))  # resamples draw runs by their number
    known = [(run, items) for run in runs if (items := run.items(measure, decoding, reference_cells))]
    if not known or len({frozenset(run.tasks) for run, _ in known}) > 1:
        return None
    values = [{task: after - before for task, (after, before) in items.items()} for _, items in known]
    return _MeasureByRun([run for run, _ in known], values, reference_cells)


def _measure_rows(
    by_strategy: Mapping[str, _MeasureByRun], measure: str, decoding: str, reference: str, n_tried: int
) -> list[dict[str, object]]:
    rows = [_row(name, measured, measure, decoding) for name, measured in by_strategy.items()]
    if reference not in by_strategy:
        return rows
    for (name, measured), row in zip(by_strategy.items(), rows, strict=True):
        difference = None if name == reference else _difference(measured, by_strategy[reference], measure, decoding)
        if difference is not None:
            row |= {"reference": reference, "p_value": t_test_p(difference)}
            values = (difference.value, difference.stderr, difference.ci_low, difference.ci_high)
            row |= dict(zip(_DIFF, values, strict=True))
    pairs = n_tried * (len(by_strategy) - 1) - n_tried * (n_tried - 1) // 2
    adjusted = holm([row.get("p_value") for row in rows], family=pairs)  # type: ignore[misc]
    return [row | {"p_holm": p_holm} for row, p_holm in zip(rows, adjusted, strict=True)]


def _row(name: str, measured: _MeasureByRun, measure: str, decoding: str) -> dict[str, object]:
    estimate, training = _estimate(measured, measure, decoding), measured.training
    return {
        "strategy": name,
        "training": training.value,
        "decoding": decoding,
        "measure": measure,
        "metric": measured.runs[0].scale(decoding),
        "n_tasks": len(measured.runs[0].tasks),
        "n_runs": len(measured.runs),
        "n_orders": len({run.tasks for run in measured.runs}) if training is Training.sequence else None,
        "n_seeds": len({run.seed for run in measured.runs}) if training is not Training.none else None,
        "value": estimate.value,
        "item_stderr": estimate.item_stderr,
        "run_sd": estimate.seed_sd,
        "stderr": estimate.stderr,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "reference": "",
    }


def _estimate(measured: _MeasureByRun, measure: str, decoding: str) -> SeedEstimate:
    """The mean over runs; of a single run the value in continual.csv."""
    pool, limits = measured.runs[0].pool(measure, decoding), measured.runs[0].limits(measure, decoding)
    if len(measured.runs) > 1 or pool is None:
        return _over_runs(measured.stacked(measured.tasks), measured, measured.tasks, limits)
    single = estimate_pool(pool, limits)
    error = (single.stderr, single.ci_low, single.ci_high, single.df)
    return SeedEstimate(single.value, 1, single.stderr, None, *error, single.strata)


def _over_runs(
    values: Sequence[Floats], measured: _MeasureByRun, tasks: Sequence[str], limits: Limits | None
) -> SeedEstimate:
    layout = item_layout({task: measured.reference_cells[task] for task in tasks})
    return over_seeds(values, layout.clusters, layout.weights_N, layout.strata, limits)


def _difference(measured: _MeasureByRun, reference: _MeasureByRun, measure: str, decoding: str) -> SeedEstimate | None:
    """The strategy minus the reference; None if their runs do not pair."""
    reordered = _measure_by_run(
        measured.runs, measure, decoding, reference.reference_cells
    )  # in the order of the reference's items
    if reordered is None or len(reordered.runs) < len(measured.runs):
        return None
    tasks = sorted({*reordered.tasks, *reference.tasks})
    if set(reordered.runs[0].tasks) != set(reference.runs[0].tasks):
        return None
    changes = _paired_differences(reordered, reference, tasks)
    limits = limits_of_difference(*(side.runs[0].limits(measure, decoding) for side in (reordered, reference)))
    return _over_runs(changes, reference, tasks, limits) if changes else None


def _paired_differences(strategy: _MeasureByRun, reference: _MeasureByRun, tasks: Sequence[str]) -> list[Floats]:
    """N differences of each pair of runs; none if one side lacks a run."""
    kinds = {strategy.training, reference.training}
    strategy_values, reference_values = strategy.stacked(tasks), reference.stacked(tasks)
    if strategy.training is Training.none:  # all its runs are the same
        return [strategy_values[0] - run_values for run_values in reference_values]
    if reference.training is Training.none:
        return [run_values - reference_values[0] for run_values in strategy_values]
    strategy_means, reference_means = (
        _mean_by_key(measured.runs, values, with_order=Training.joint not in kinds)
        for measured, values in ((strategy, strategy_values), (reference, reference_values))
    )
    return (
        [strategy_means[key] - reference_means[key] for key in strategy_means]
        if strategy_means.keys() == reference_means.keys()
        else []
    )


def _mean_by_key(runs: Sequence[ContinualRun], values: Sequence[Floats], with_order: bool) -> dict[object, Floats]:
    """The mean of the runs with a seed, and with an order if that counts."""
    by_key: dict[object, list[Floats]] = defaultdict(list)
    for run, items in zip(runs, values, strict=True):
        by_key[(run.tasks if with_order else (), run.seed)].append(items)
    return {key: np.mean(run_items, axis=0) for key, run_items in by_key.items()}
