"""How many items a cell needs to find a change of a given size, from the variance that was observed in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from forgetbench.statistics.intervals import detectable_stderrs

COLUMNS = (
    "run", "checkpoint", "dataset", "quadrant", "decoding", "metric", "n", "n_clusters", "delta", "delta_stderr",
    "design_effect", "mde", "difference", "items_needed", "clusters_needed", "enough",
)  # fmt: skip


def items_needed(scores: pd.DataFrame, differences: Sequence[float], power: float, alpha: float) -> pd.DataFrame:
    """For each cell and difference, the items at which a paired test finds it, by COLUMNS.

    The standard error of a change falls with the root of the number of clusters, so n = n_now (z SE_now / x)^2 items
    clustered alike, with z = z(1 - alpha/2) + z(power). `design_effect` is how many times the variance of the change is
    that of as many unclustered items: where it is large, more clusters help and more items of the same ones do not. A
    cell in which nothing changed says nothing of the variance, so what it would need is absent. `alpha` is of one test;
    for Holm over k cells use alpha / k.

    Args:
        scores: rows of scores.csv, one per cell.
        differences: true changes to be found, as fractions of 1.
        power: the probability to find them.
        alpha: the level of the two-sided test.
    """
    z = detectable_stderrs(power, alpha)
    rows = [_row(row, difference, z) for row in scores.to_dict("records") for difference in differences]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"items_needed": "Int64", "clusters_needed": "Int64", "n": "Int64", "n_clusters": "Int64"})


def _row(row: dict[object, object], difference: float, z: float) -> dict[str, object]:
    stderr, n, clusters = (_number(row[name]) for name in ("delta_stderr", "n", "n_clusters"))
    out = {name: row.get(name) for name in COLUMNS if name in row}
    out |= {"difference": difference, "mde": None, "design_effect": _design_effect(row)}
    if not stderr or n is None or clusters is None:
        return out
    factor = (z * stderr / difference) ** 2
    return out | {
        "mde": z * stderr,
        "items_needed": math.ceil(n * factor),
        "clusters_needed": max(2, math.ceil(clusters * factor)),
        "enough": factor <= 1,
    }


def _design_effect(row: dict[object, object]) -> float | None:
    """Variance of the change over that of n independent items; None unless the scores are right or wrong."""
    known = [_number(row.get(name)) for name in ("delta_stderr", "n", "delta", "forgotten", "gained")]
    stderr, n, delta, forgotten, gained = known
    if stderr is None or n is None or delta is None or forgotten is None or gained is None or n < 2:
        return None
    variance = forgotten + gained - delta**2
    return stderr**2 * (n - 1) / variance if variance > 0 else None


def _number(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload,arg-type]
