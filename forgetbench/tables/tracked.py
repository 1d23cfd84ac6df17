"""Scores as an experiment tracker takes them: numbers with names, by training step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from forgetbench.core.records import Metric

SCORES = "forgetbench/"
"""Before the name of every score."""
_CHANGE = ("delta", "delta_ci_low", "delta_ci_high")
_SUMMARY = (
    *("A_T", "A_S", "H", "O", "target_delta", "target_delta_ci_low", "target_delta_ci_high"),
    *("source_delta", "source_delta_ci_low", "source_delta_ci_high", "retention"),
)
_GUARD = ("loss", "low", "high", "budget")
_NO_NAME = re.compile(r"[^\w./-]", re.ASCII)
"""What trackers do not take in a name."""


def score_numbers(
    matrix: pd.DataFrame, summary: pd.DataFrame, guard: pd.DataFrame | None = None
) -> dict[int, dict[str, float]]:
    """Step -> name -> number; what is absent has no entry.

    `forgetbench/<quadrant>/<decoding>` is the quadrant's value, `.../delta` its change from the base, with both ends of
    its interval; `forgetbench/summary/<decoding>/A_T` and so on are what summary.csv says. A name goes on with the
    metric if it is no accuracy, and has `seen_in_mix` or the variant in front where a row is of one.

    Args:
        matrix: matrix.csv of one run.
        summary: its summary.csv.
        guard: its guard.csv, if it has one.
    """
    steps = {} if guard is None else guard_numbers(guard)
    for row in matrix.to_dict("records"):
        seen = "seen_in_mix/" if row["seen_in_mix"] else ""
        metric = "" if row["metric"] == Metric.accuracy else f"/{row['metric']}"
        name = _name(row, f"{seen}{row['quadrant']}/{row['decoding']}{metric}")
        steps.setdefault(int(row["step"]), {}).update(_numbers(row, {"value": name, **_below(name, _CHANGE)}))
    for row in summary.to_dict("records"):
        name = _name(row, f"summary/{row['decoding']}")
        steps.setdefault(int(row["step"]), {}).update(_numbers(row, _below(name, _SUMMARY)))
    return {step: numbers for step, numbers in sorted(steps.items()) if numbers}


def guard_numbers(guard: pd.DataFrame) -> dict[int, dict[str, float]]:
    """Step -> `forgetbench/guard/<group>/loss` and so on -> number, as guard.csv has them: fractions of 1.

    Args:
        guard: guard.csv of one run; it may be empty.
    """
    steps: dict[int, dict[str, float]] = {}
    for row in guard.to_dict("records"):
        name = SCORES + _NO_NAME.sub("_", f"guard/{row['group']}")
        steps.setdefault(int(row["step"]), {}).update(_numbers(row, _below(name, _GUARD)))
    return steps


def _name(row: Mapping[Any, Any], what: str) -> str:
    variant = f"{row['variant']}/" if isinstance(row["variant"], str) and row["variant"] else ""
    return SCORES + _NO_NAME.sub("_", f"{variant}{what}")


def _below(name: str, columns: tuple[str, ...]) -> dict[str, str]:
    return {column: f"{name}/{column}" for column in columns}


def _numbers(row: Mapping[Any, Any], names: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    return ((name, float(row[column])) for column, name in names.items() if not pd.isna(row[column]))
