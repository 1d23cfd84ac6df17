"""Made-up tables of continual learning: runs of three tasks, by strategy, order and seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd

ORDERS = (("a", "b", "c"), ("c", "a", "b"))


def continual(
    strategies: Sequence[str] = ("seq_full",), n_orders: int = 1, n_seeds: int = 1, metric: str = "accuracy"
) -> pd.DataFrame:
    """continual.csv of a run per strategy, order and seed; each task is learnt to 90 % and loses 20 points a stage."""
    rows = []
    for strategy, order, seed in itertools.product(strategies, ORDERS[:n_orders], range(n_seeds)):
        head = {
            "run": f"{strategy}-{''.join(order)}-{seed}", "recipe": strategy, "strategy": strategy, "seed": seed,
            "tasks": ">".join(order), "decoding": "choice", "measure": "score", "metric": metric,
        }  # fmt: skip
        for stage, (position, task) in itertools.product(range(4), enumerate(order, 1)):
            since = stage - position
            value = 0.3 if since < 0 else 0.9 - 0.2 * since + 0.01 * seed
            relation = "base" if not stage else "current" if not since else "past" if since > 0 else "future"
            found = {"stage": stage, "task": task, "position": position, "relation": relation, "value": value}
            rows.append(head | found | {"ci_low": value - 0.05, "ci_high": value + 0.05})
    return pd.DataFrame(rows)


def strategy_row(strategy: str, measure: str, value: float | None, **changes: object) -> dict[str, object]:
    half = {"ci_low": None, "ci_high": None} if value is None else {"ci_low": value - 0.04, "ci_high": value + 0.04}
    known = {
        "strategy": strategy, "training": "sequence", "decoding": "choice", "measure": measure, "metric": "accuracy",
        "n_tasks": 3, "n_runs": 4, "n_orders": 2, "n_seeds": 2, "value": value, "reference": "", "diff": None,
        "diff_ci_low": None, "diff_ci_high": None, "p_holm": None,
    }  # fmt: skip
    return known | half | changes


def strategies() -> pd.DataFrame:
    """strategies.csv: two strategies, both bounds, and one that was not finished."""
    compared = {"reference": "seq_full", "diff": 0.1, "diff_ci_low": 0.06, "diff_ci_high": 0.14, "p_holm": 0.01}
    below = {"reference": "seq_full", "diff": -0.3, "diff_ci_low": -0.4, "diff_ci_high": 0.1, "p_holm": 0.2}
    return pd.DataFrame(
        [
            strategy_row("seq_full", "MFT", 0.9),
            strategy_row("seq_full", "MFN", 0.6),
            strategy_row("seq_full", "BWT", -0.3),
            strategy_row("ewc", "MFT", 0.8),
            strategy_row("ewc", "MFN", 0.7, **compared),
            strategy_row("ewc", "BWT", -0.1),
            strategy_row("joint", "MFN", 0.95, training="joint", n_orders=None),
            strategy_row("zero_shot", "MFN", 0.3, training="none", n_runs=1, n_orders=None, n_seeds=None, **below),
            strategy_row("half", "MFT", 0.8, n_runs=1),
        ]
    )
