"""guard.csv: the losses at each look of a guarded run, their bounds, and the decision; no model or torch needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forgetbench.statistics.intervals import Estimate, paired_difference
from forgetbench.statistics.sequential import Budget, Verdict
from forgetbench.statistics.strata import join_ways
from forgetbench.tables.cell_view import CellView, aligned
from forgetbench.tables.metrics import item_scores

GUARD = "guard.csv"
GUARD_COLUMNS = (
    "run", "look", "looks", "stage", "step", "group", "datasets", "n", "n_clusters", "loss", "stderr", "low", "high",
    "budget", "level", "spent", "over", "broken", "kept", "decision",
)  # fmt: skip
DECISIONS = GO_ON, STOP, END = "go on", "stop", "end"
"""Decision after a look: training goes on, is stopped by the budget, or is complete."""
MEAN = "mean"
"""The group of `guard.over=mean`."""

Groups = Mapping[str, Mapping[str, float]]
"""Group -> dataset -> weight of its mean; the weights of a group sum to 1."""


@dataclass(frozen=True)
class Look:
    """The answers of one look."""

    stage: int
    step: int
    cells: Mapping[str, tuple[CellView, CellView]]
    """Dataset -> the base's answers and the checkpoint's."""


def groups_of(quadrants: Mapping[str, str], in_mean: bool) -> Groups:
    """Groups that a budget is for: quadrants of datasets with equal weight, or the mean of the quadrants.

    Args:
        quadrants: dataset -> quadrant; a dataset in none is a group by itself.
        in_mean: whether the quadrants' mean counts, and not each of them.
    """
    members: dict[str, list[str]] = {}
    for dataset, quadrant in quadrants.items():
        members.setdefault(quadrant or dataset, []).append(dataset)
    weights = {group: dict.fromkeys(names, 1 / len(names)) for group, names in sorted(members.items())}
    if not in_mean:
        return weights
    return {MEAN: {name: weight / len(weights) for group in weights.values() for name, weight in group.items()}}


def loss(cells: Mapping[str, tuple[CellView, CellView]], weights: Mapping[str, float]) -> Estimate:
    """Mean of (base - now) over items, paired and clustered; datasets count by their weights.

    Raises:
        UserError: a checkpoint and the base hold different items.
    """
    pairs = [(aligned(base, checkpoint), checkpoint) for base, checkpoint in (cells[name] for name in weights)]
    before, after = ([item_scores(cell) for cell in side] for side in zip(*pairs, strict=True))
    sizes = [len(checkpoint.frame) for _, checkpoint in pairs]
    item_weights = [weight / size for weight, size in zip(weights.values(), sizes, strict=True)]
    return paired_difference(
        np.concatenate([np.asarray(scores.values) for scores in before]),
        np.concatenate([np.asarray(scores.values) for scores in after]),
        join_ways(*(scores.clusters for scores in after)),
        None if len(pairs) == 1 else np.repeat(item_weights, sizes),
        np.repeat(list(weights), sizes).tolist(),
    ).difference


def guard_rows(run: str, looks: Sequence[Look], groups: Groups, budget: Budget) -> pd.DataFrame:
    """guard.csv: a row per look and group; fractions of 1.

    `low` and `high` hold together over all looks and groups, each side with the confidence of every interval; `level`
    is the part of ALPHA that each of the two spends, `spent` the part spent up to this look. A look that stops the run
    is the last.

    Args:
        run: its name.
        looks: those that were made, in order.
        groups: what the budget is for.
        budget: the test, with the number of looks that are planned.
    """
    rows: list[dict[str, object]] = []
    spent = 0.0
    for number, look in enumerate(looks, start=1):
        verdicts = budget.verdicts(number, {group: loss(look.cells, weights) for group, weights in groups.items()})
        spent += budget.level(number) * len(groups)
        stops = any(verdict.is_broken for verdict in verdicts.values())
        decision = STOP if stops else END if number == budget.looks else GO_ON
        place = {"run": run, "look": number, "looks": budget.looks, "stage": look.stage, "step": look.step}
        rows += [
            place
            | {"group": group, "datasets": "+".join(groups[group])}
            | _columns(verdict, round(spent, 12), decision)
            for group, verdict in verdicts.items()
        ]
        if stops:
            break
    return pd.DataFrame(rows, columns=list(GUARD_COLUMNS))


def _columns(verdict: Verdict, spent: float, decision: str) -> dict[str, object]:
    return {
        "n": verdict.loss.n,
        "n_clusters": verdict.loss.n_clusters,
        "loss": verdict.loss.value,
        "stderr": verdict.loss.stderr,
        "low": verdict.low,
        "high": verdict.high,
        "budget": verdict.max_loss,
        "level": verdict.level,
        "spent": spent,
        "over": verdict.is_over,
        "broken": verdict.is_broken,
        "kept": verdict.is_within_budget,
        "decision": decision,
    }


@dataclass(frozen=True)
class Ending:
    """How a guarded run ended, by its guard.csv."""

    step: int
    """The last look whose estimates were all within the budget; 0, the untouched base, if none was."""
    last_look: int
    """The step of the last look: training went no further."""
    is_stopped: bool
    """Whether the budget was shown to be broken."""
    is_within_budget: bool
    """Whether the upper bounds at `step` are within the budget, too."""
    broken: str
    """The group that was shown to lose most, of a run that was stopped; else empty."""
    loss: float
    """Its loss at that look."""
    low: float
    """Lower bound of that loss."""
    budget: float


def ending(rows: pd.DataFrame) -> Ending | None:
    """How a run ended; None as long as it goes on.

    Args:
        rows: of its guard.csv.
    """
    if rows.empty or rows["decision"].iloc[-1] == GO_ON:
        return None
    is_over, is_within_budget = (
        rows.groupby("step")[name].agg(how) for name, how in (("over", "any"), ("kept", "all"))
    )
    within = [int(step) for step in is_over.index[~is_over.astype(bool)]]
    step, last_look = max(within, default=0), int(rows["step"].max())
    last = rows[rows["step"] == last_look]
    worst = last.iloc[int(last["low"].astype(float).fillna(-1.0).argmax())]
    is_stopped = bool(rows["decision"].iloc[-1] == STOP)
    return Ending(
        step=step,
        last_look=last_look,
        is_stopped=is_stopped,
        is_within_budget=step == 0 or bool(is_within_budget[step]),
        broken=str(worst["group"]) if is_stopped else "",
        loss=float(worst["loss"]) if is_stopped else 0.0,
        low=float(worst["low"]) if is_stopped else 0.0,
        budget=float(last["budget"].iloc[0]),
    )
