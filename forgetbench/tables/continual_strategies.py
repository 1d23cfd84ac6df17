"""strategies.csv: ways of learning task after task side by side, over their task orders and seeds.

Every run is one draw of the second level of error, as seeds are in `over_seeds`; items are the first. Task orders
differ in where a task stands and not in the tasks, so items are put in one order of tasks (by name) before runs meet.

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
from forgetbench.tables.continual_course import MEASURES, Course, arrange, estimate_pool

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
class _Draws:
    """One measure of a strategy: what the items of each task add to it, run by run."""

    courses: Sequence[Course]
    values: Sequence[Mapping[str, Floats]]
    leads: Mapping[str, CellView]

    @property
    def training(self) -> Training:
        return self.courses[0].training

    @cached_property
    def tasks(self) -> list[str]:
        """Those that count in any run; in another order another task is the last one."""
        return sorted({task for one in self.values for task in one})

    def stacked(self, tasks: Sequence[str]) -> list[Floats]:
        """N values of each run; 0 where its order leaves a task out, the others counting for more."""
        return [np.concatenate([self._part(one, task, len(tasks)) for task in tasks]) for one in self.values]

    def _part(self, one: Mapping[str, Floats], task: str, n_tasks: int) -> Floats:
        return one[task] * (n_tasks / len(one)) if task in one else np.zeros(len(self.leads[task].frame))


def strategy_rows(runs: Mapping[str, Sequence[Course]], reference: str | None = None) -> pd.DataFrame:
    """A row per strategy, decoding and measure, and how it differs from a reference on the same items.

    `item_stderr` is of these runs on other items, `run_sd` between runs (task orders and seeds) on these items, and the
    interval holds both; of a single run it is the one of continual.csv. A run without the measure is left out, and
    `n_runs` says how many are not.

    `diff` is the strategy less the reference, run by run with the same order and seed. A joint run has no order: it
    meets the mean over orders of the runs with its seed; the untrained base meets every run. `p_value` is of its t
    test, `p_holm` adjusts over the strategies within a measure, and over every pair that was looked at where the
    reference was found by looking. Strategies whose orders, seeds or items differ are not compared.

    Args:
        runs: strategy -> its runs.
        reference: a strategy; by default the one of SIMPLE (of all, without any of these) with the highest MFN.
    """
    tried = [reference] if reference is not None else _candidates(runs)
    lead = reference if reference is not None else _best(runs, tried)
    rows: list[dict[str, object]] = []
    for decoding in _decodings(runs):
        for measure in MEASURES:
            found = {name: one for name, courses in runs.items() if (one := _draws(courses, measure, decoding, None))}
            rows += _measure_rows(found, measure, decoding, lead, len(found.keys() & set(tried)))
    frame = pd.DataFrame(rows, columns=list(STRATEGY_COLUMNS))
    return frame.astype(dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_FLOATS, "Float64"))


def _decodings(runs: Mapping[str, Sequence[Course]]) -> list[str]:
    return sorted({decoding for courses in runs.values() for one in courses for decoding in one.decodings})


def _candidates(runs: Mapping[str, Sequence[Course]]) -> list[str]:
    """The strategies that may be the reference; bounds are none."""
    trained = [name for name, courses in runs.items() if courses and courses[0].training is Training.sequence]
    return [name for name in trained if name in SIMPLE] or trained


def _best(runs: Mapping[str, Sequence[Course]], names: Sequence[str]) -> str:
    """The one with the highest MFN, read by `choice` if it is there; empty without any."""
    decodings = _decodings(runs)
    decoding = Decoding.choice.value if Decoding.choice in decodings else next(iter(decodings), "")
    values = {}
    for name in sorted(names):
        if draws := _draws(runs[name], "MFN", decoding, None):
            values[name] = _estimate(draws, "MFN", decoding).value or 0.0
    return max(values, key=lambda name: values[name], default="")


def _draws(
    courses: Sequence[Course], measure: str, decoding: str, leads: Mapping[str, CellView] | None
) -> _Draws | None:
    """None if no run has the measure on these items, or runs differ in their tasks."""
    if leads is None:
        leads = {task: lead for one in reversed(courses) for task, lead in one.leads(decoding).items()}
    courses = sorted(courses, key=lambda one: (one.tasks, one.seed or 0))  # resamples draw runs by their number
    known = [(one, items) for one in courses if (items := one.items(measure, decoding, leads))]
    if not known or len({frozenset(one.tasks) for one, _ in known}) > 1:
        return None
    values = [{task: after - before for task, (after, before) in items.items()} for _, items in known]
    return _Draws([one for one, _ in known], values, leads)


def _measure_rows(
    found: Mapping[str, _Draws], measure: str, decoding: str, lead: str, n_tried: int
) -> list[dict[str, object]]:
    rows = [_row(name, draws, measure, decoding) for name, draws in found.items()]
    if lead not in found:
        return rows
    for (name, draws), row in zip(found.items(), rows, strict=True):
        difference = None if name == lead else _difference(draws, found[lead], measure, decoding)
        if difference is not None:
            row |= {"reference": lead, "p_value": t_test_p(difference)}
            values = (difference.value, difference.stderr, difference.ci_low, difference.ci_high)
            row |= dict(zip(_DIFF, values, strict=True))
    pairs = n_tried * (len(found) - 1) - n_tried * (n_tried - 1) // 2
    adjusted = holm([row.get("p_value") for row in rows], family=pairs)  # type: ignore[misc]
    return [row | {"p_holm": p_holm} for row, p_holm in zip(rows, adjusted, strict=True)]


def _row(name: str, draws: _Draws, measure: str, decoding: str) -> dict[str, object]:
    estimate, training = _estimate(draws, measure, decoding), draws.training
    return {
        "strategy": name,
        "training": training.value,
        "decoding": decoding,
        "measure": measure,
        "metric": draws.courses[0].scale(decoding),
        "n_tasks": len(draws.courses[0].tasks),
        "n_runs": len(draws.courses),
        "n_orders": len({one.tasks for one in draws.courses}) if training is Training.sequence else None,
        "n_seeds": len({one.seed for one in draws.courses}) if training is not Training.none else None,
        "value": estimate.value,
        "item_stderr": estimate.item_stderr,
        "run_sd": estimate.seed_sd,
        "stderr": estimate.stderr,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "reference": "",
    }


def _estimate(draws: _Draws, measure: str, decoding: str) -> SeedEstimate:
    """Over the runs; of a single one, what continual.csv says of it."""
    pool, limits = draws.courses[0].pool(measure, decoding), draws.courses[0].limits(measure, decoding)
    if len(draws.courses) > 1 or pool is None:
        return _over_runs(draws.stacked(draws.tasks), draws, draws.tasks, limits)
    only = estimate_pool(pool, limits)
    error = (only.stderr, only.ci_low, only.ci_high, only.df)
    return SeedEstimate(only.value, 1, only.stderr, None, *error, only.strata)


def _over_runs(values: Sequence[Floats], draws: _Draws, tasks: Sequence[str], limits: Limits | None) -> SeedEstimate:
    layout = arrange({task: draws.leads[task] for task in tasks})
    return over_seeds(values, layout.clusters, layout.weights_N, layout.strata, limits)


def _difference(draws: _Draws, lead: _Draws, measure: str, decoding: str) -> SeedEstimate | None:
    """The strategy less the reference; None if their runs do not pair."""
    same = _draws(draws.courses, measure, decoding, lead.leads)  # in the order of the reference's items
    if same is None or len(same.courses) < len(draws.courses):
        return None
    tasks = sorted({*same.tasks, *lead.tasks})
    if set(same.courses[0].tasks) != set(lead.courses[0].tasks):
        return None
    changes = _paired(same, lead, tasks)
    limits = limits_of_difference(*(one.courses[0].limits(measure, decoding) for one in (same, lead)))
    return _over_runs(changes, lead, tasks, limits) if changes else None


def _paired(ours: _Draws, theirs: _Draws, tasks: Sequence[str]) -> list[Floats]:
    """N differences of each pair of runs; none if one side lacks a run."""
    kinds = {ours.training, theirs.training}
    our_values, their_values = ours.stacked(tasks), theirs.stacked(tasks)
    if ours.training is Training.none:  # its runs are one and the same
        return [our_values[0] - one for one in their_values]
    if theirs.training is Training.none:
        return [one - their_values[0] for one in our_values]
    mine, yours = (
        _by_key(draws.courses, values, with_order=Training.joint not in kinds)
        for draws, values in ((ours, our_values), (theirs, their_values))
    )
    return [mine[key] - yours[key] for key in mine] if mine.keys() == yours.keys() else []


def _by_key(courses: Sequence[Course], values: Sequence[Floats], with_order: bool) -> dict[object, Floats]:
    """The mean of the runs with a seed, and with an order if that counts."""
    found: dict[object, list[Floats]] = defaultdict(list)
    for one, items in zip(courses, values, strict=True):
        found[(one.tasks if with_order else (), one.seed)].append(items)
    return {key: np.mean(runs, axis=0) for key, runs in found.items()}
