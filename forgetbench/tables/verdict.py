"""The word for a change, the same in every table, on the page and in `compare`."""

from __future__ import annotations

from forgetbench.core.confidence import ALPHA


def verdict(change: float | None, ci_low: float | None, ci_high: float | None, p_holm: float | None) -> str:
    """`lower`, `higher` or `unclear`: by the corrected p-value where there is one, else by the interval.

    So the word never contradicts the p-value beside it. Of many changes that are tested together, the intervals leave
    out 0 more often than the level says.

    Returns:
        The word; empty without an interval.
    """
    if change is None or ci_low is None or ci_high is None:
        return ""
    is_decided = ci_high < 0 or ci_low > 0 if p_holm is None else is_starred(p_holm)
    if not is_decided:
        return "unclear"
    return "lower" if change < 0 else "higher"


def is_starred(p_holm: float | None) -> bool:
    """Whether a change stands after adjustment for how many were tested."""
    return p_holm is not None and p_holm < ALPHA
