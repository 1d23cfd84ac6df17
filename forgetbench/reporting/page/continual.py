"""The page's table of continual learning: a line per strategy, the best final scores first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from forgetbench.reporting.page.score_history import DASH, Row, interval_text, records, signed_text, text, value_text
from forgetbench.tables.verdict import is_starred, verdict
from forgetbench.terminal.wording import first_decoding, number

MEASURES = {
    "MFT": "mean over tasks of the score right after the task's own stage",
    "MFN": "mean over tasks of the score after the last stage",
    "MAA": "mean over stages of the mean score on the tasks learnt so far",
    "BWT": "backward transfer: what later stages changed on earlier tasks",
    "FWT": "forward transfer: what earlier stages changed on a task before its own, beside the base",
    "forgetting": "an earlier task's best score before the last stage, less its final one; the best stage is chosen by "
    "the same items, so it leans upward",
}
_FINAL = "MFN"
_SIGNED = ("BWT", "FWT")
_BOUNDS = {"joint": ("upper bound", "all tasks at once"), "none": ("lower bound", "nothing trained")}


@dataclass(frozen=True)
class StrategyLine:
    """A strategy's line of the table."""

    name: str
    bound: tuple[str, str] | None
    """Kind of the bound and the reason; None for a strategy."""
    runs: str
    """How many runs, and of how many orders and seeds."""
    cells: Mapping[str, str]
    """Measure -> value and half its interval."""
    final: float | None
    difference: str
    """MFN minus the reference's; empty if they were not compared."""
    interval: str
    tone: str
    is_starred: bool


@dataclass(frozen=True)
class StrategyTable:
    """All strategies in one decoding."""

    decoding: str
    lines: Sequence[StrategyLine]
    reference: str
    """The strategy that others are compared with; may be empty."""

    @property
    def has_several_runs(self) -> bool:
        """Whether any line is a mean over runs."""
        return any(line.runs != "1" for line in self.lines)


def strategy_tables(strategies: pd.DataFrame) -> list[StrategyTable]:
    """strategies.csv by decoding, the primary decoding first; none without rows."""
    if strategies.empty:
        return []
    first = first_decoding(strategies["decoding"])
    decodings = sorted(set(strategies["decoding"]), key=lambda decoding: (decoding != first, decoding))
    return [_table(decoding, records(strategies[strategies["decoding"] == decoding])) for decoding in decodings]


def _table(decoding: str, rows: Sequence[Row]) -> StrategyTable:
    names = dict.fromkeys(text(row["strategy"]) for row in rows)
    lines = [_line(name, {text(row["measure"]): row for row in rows if row["strategy"] == name}) for name in names]
    lines.sort(key=lambda line: (line.final is None, -(line.final or 0.0), line.name))
    reference = next((strategy for row in rows if (strategy := text(row["reference"]))), "")
    return StrategyTable(decoding, lines, reference)


def _line(name: str, rows: Mapping[str, Row]) -> StrategyLine:
    any_row, final = next(iter(rows.values())), rows.get(_FINAL, {})
    metric = text(any_row["metric"])
    difference = number(final.get("diff"))
    low, high = number(final.get("diff_ci_low")), number(final.get("diff_ci_high"))
    p_holm = number(final.get("p_holm"))
    tone = {"higher": "better", "lower": "worse"}.get(verdict(difference, low, high, p_holm), "flat")
    return StrategyLine(
        name=name,
        bound=_BOUNDS.get(text(any_row["training"])),
        runs=_runs(any_row),
        cells={measure: _cell(measure, rows.get(measure, {}), metric) for measure in MEASURES},
        final=number(final.get("value")),
        difference="" if difference is None else signed_text(difference, metric),
        interval="" if low is None else interval_text(low, high, metric),
        tone=tone,
        is_starred=is_starred(p_holm),
    )


def _runs(row: Row) -> str:
    n_runs = int(number(row["n_runs"]) or 0)
    if n_runs <= 1:
        return str(n_runs)
    counts = [(number(row["n_orders"]), "order"), (number(row["n_seeds"]), "seed")]
    counted = ", ".join(f"{n:.0f} {noun}{'s' * (n != 1)}" for n, noun in counts if n is not None)
    return f"{n_runs} ({counted})" if counted else str(n_runs)


def _cell(measure: str, row: Row, metric: str) -> str:
    value, low, high = (number(row.get(name)) for name in ("value", "ci_low", "ci_high"))
    shown = signed_text(value, metric) if measure in _SIGNED else value_text(value, metric)
    if shown == DASH or low is None or high is None:
        return shown
    return f"{shown} ±{value_text((high - low) / 2, metric)}"
