"""Lines about a run with a budget of forgetting."""

from __future__ import annotations

from forgetbench.tables.guard import Ending
from forgetbench.terminal.wording import QUADRANT_NAMES


def group_name(group: str) -> str:
    """A group of guard.csv in words."""
    return QUADRANT_NAMES.get(group, group)


def ending_line(run: str, ending: Ending) -> str:
    """How a run ended, in one line.

    Args:
        run: its name or folder.
        ending: by its guard.csv.
    """
    budget = f"{100 * ending.budget:g} points"
    if ending.is_stopped:
        outcome = (
            f"stopped after step {ending.last_look}: {group_name(ending.broken)} lost {100 * ending.loss:.1f} points, "
            f"at least {100 * ending.low:.1f}, where {budget} may be lost"
        )
    elif ending.step < ending.last_look:
        outcome = f"trained to step {ending.last_look}, which is over its budget of {budget}, though not shown to be"
    else:
        outcome = f"trained to step {ending.last_look} within its budget of {budget}"
    return f"{run}: {outcome}. {_final_step_text(ending)}"


def _final_step_text(ending: Ending) -> str:
    if not ending.step:
        return "No checkpoint was within the budget: the run ends on the untouched base."
    shown = "its upper bounds are, too" if ending.is_within_budget else "that its true loss is within it is not shown"
    return f"The run ends on step {ending.step}, whose estimates are within the budget; {shown}."


def short_ending(ending: Ending) -> str:
    """A short note beside a run's name in a table; empty for a run that trained to its end within the budget."""
    if ending.is_stopped:
        return f"stopped at {ending.last_look} by its budget"
    return "over budget at its end" if ending.step < ending.last_look else ""


def cost_line(run: str, guard_s: float, training_s: float) -> str:
    """What the looks took.

    Args:
        run: its name or folder.
        guard_s: seconds of all looks, the base's included.
        training_s: seconds of the optimiser's steps.
    """
    share = f", {guard_s / training_s:.0%} of the {training_s:.1f} s of its steps" if training_s else ""
    return f"{run}: guard: its looks took {guard_s:.1f} s{share} (guard.csv)."
