"""How far a run's answers on its target are from the base's, as one line beside the matrix."""

from __future__ import annotations

import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.tables.last import as_trained, last_stage, last_step
from forgetbench.terminal.wording import number


def drift_line(drift: pd.DataFrame) -> str:
    """The drift of a run's last checkpoint as trained, from its drift.csv; empty where that has no value."""
    rows = last_step(last_stage(as_trained(drift))) if len(drift) else drift
    if rows.empty or (kl := number(rows["kl_from_base"].iloc[0])) is None:
        return ""
    row = rows.iloc[0]
    low, high, flips = (number(row[name]) for name in ("kl_from_base_ci_low", "kl_from_base_ci_high", "flips"))
    interval = "" if low is None or high is None else f" ({CONFIDENCE_TEXT} {low:.3f} to {high:.3f})"
    changed = "" if flips is None else f"; {100 * flips:.1f} % of the choices changed"
    return f"drift on the target's items, base -> last: KL {kl:.3f} nats{interval}{changed}"
