"""A score from the base to the last checkpoint, and how numbers are written on the page.

Rows are the tables' rows as mappings, all of the same run, dataset or quadrant, decoding and metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from forgetbench.tables.verdict import is_starred, verdict
from forgetbench.terminal.wording import MERIT, is_fraction, number

Row = Mapping[str, Any]
DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def records(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame."""
    return [{str(column): value for column, value in row.items()} for row in frame.to_dict("records")]


def text(value: object) -> str:
    """A cell as text; empty where it is empty."""
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def value_text(value: float | None, metric: str = "accuracy") -> str:
    """A percentage, or a number on the metric's scale."""
    if value is None:
        return DASH
    return _format_number(value, metric, "")


def signed_text(value: float | None, metric: str = "accuracy") -> str:
    """A change in points, or on the metric's scale."""
    if value is None:
        return DASH
    return _format_number(value, metric, "+")


def interval_text(low: float | None, high: float | None, metric: str = "accuracy") -> str:
    """An interval [a, b], in the unit of `value_text`."""
    if low is None or high is None:
        return DASH
    return f"[{value_text(low, metric)}, {value_text(high, metric)}]"


def p_text(value: float | None) -> str:
    """A p-value to three decimals."""
    if value is None:
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def count_text(value: float | None) -> str:
    """A whole number with commas."""
    return DASH if value is None else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """A number of parameters to three digits, such as 820k or 2.07M."""
    if value is None:
        return DASH
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:#.3g}".rstrip(".") + letter
    return f"{value:.0f}"


def seconds_text(value: float | None) -> str:
    """A duration, as 41 s, 3 min 20 s or 2 h 05 min."""
    if value is None:
        return DASH
    if value < 59.5:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _format_number(value: float, metric: str, sign: str) -> str:
    shown, digits = (100 * value, 1) if is_fraction(metric) else (value, 2)
    # Adding 0 takes the sign from a rounded -0.
    return f"{round(shown, digits) + 0.0:{sign}.{digits}f}".replace("-", MINUS)


@dataclass(frozen=True)
class ScoreHistory:
    """A score from the base to the last checkpoint."""

    metric: str
    base: float | None
    last: float | None
    """None while only the base is scored."""
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    p_holm: float | None
    checkpoint: str
    """The last checkpoint with a score; may be empty."""
    points: tuple[tuple[int, float], ...]
    """(step, value) of base and checkpoints, for a sparkline."""

    @property
    def verdict(self) -> str:
        """The word for the change, as in the terminal; empty where there is no interval."""
        return verdict(self.delta, self.ci_low, self.ci_high, self.p_holm)

    @property
    def tone(self) -> str:
        """Whether the change is for the better, for colours; the words stay higher and lower."""
        merit = {"higher": 1, "lower": -1}.get(self.verdict, 0) * MERIT.get(self.metric, 1)
        return ("flat", "better", "worse")[merit]

    @property
    def is_starred(self) -> bool:
        """Whether the change stands after adjustment for how many were tested."""
        return is_starred(self.p_holm)

    @property
    def unit(self) -> str:
        """The percent sign where there is one."""
        return " %" if is_fraction(self.metric) else ""

    @property
    def base_text(self) -> str:
        """The base's score."""
        return value_text(self.base, self.metric)

    @property
    def last_text(self) -> str:
        """The last checkpoint's score."""
        return value_text(self.last, self.metric)

    @property
    def delta_text(self) -> str:
        """The change, signed."""
        return signed_text(self.delta, self.metric)

    @property
    def interval(self) -> str:
        """The interval of the change."""
        return interval_text(self.ci_low, self.ci_high, self.metric)

    @property
    def p_text(self) -> str:
        """The p-value after Holm's correction."""
        return p_text(self.p_holm)


def build_score_history(rows: Sequence[Row]) -> ScoreHistory:
    """Build the history from the rows of a score, at least one, in any order."""
    ordered = sorted(rows, key=lambda row: int(row["step"]))
    last, trained = ordered[-1], int(ordered[-1]["step"]) > 0
    base = number(last.get("base_value"))
    points = [(int(row["step"]), number(row["value"])) for row in ordered]
    if base is not None and points[0][0] > 0:
        points.insert(0, (0, base))
    return ScoreHistory(
        metric=str(last["metric"]),
        base=base if trained or base is not None else number(last["value"]),
        last=number(last["value"]) if trained else None,
        delta=number(last.get("delta")),
        ci_low=number(last.get("delta_ci_low")),
        ci_high=number(last.get("delta_ci_high")),
        p_holm=number(last.get("p_holm")),
        checkpoint=text(last.get("checkpoint")),
        points=tuple((step, value) for step, value in points if value is not None),
    )
