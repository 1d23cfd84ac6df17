"""How often a budget of forgetting stops a run that keeps it, and how soon one that does not, by simulation.

python -m tools.guard_study                                                   # docs/results/guard.md
python -m tools.guard_study --repetitions 100 --write guard_small.md          # a smaller one, elsewhere
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special  # type: ignore[import-untyped]

from forgetbench.statistics.intervals import Estimate, paired_difference
from forgetbench.statistics.sequential import Budget
from forgetbench.statistics.strata import Floats
from tools.coverage_worlds import CLUSTER_SHARE, Items, Random, Row, grouped, items_of, latent, quadrant, repeat

OUT = Path(__file__).resolve().parents[1] / "docs/results/guard.md"
REPETITIONS = 1_000
AGREEMENT = 0.8
"""Correlation of an item's latent values in the base and at a look."""
SHARED = 0.7
"""Share of a checkpoint's change that is common to all checkpoints of a run."""
ALPHA = 0.05
SHAPES: dict[str, Items] = {
    "25 items": items_of([np.arange(25)]),
    "67 items": items_of([np.arange(67)]),
    "200 items": items_of([np.arange(200)]),
    "1,000 items": items_of([np.arange(1000)]),
    "5 clusters of 10": grouped(5),
    "10 clusters of 10": grouped(10),
    "10 uneven clusters": grouped(10, uneven=True),
    "30 uneven clusters": grouped(30, uneven=True),
    "100 uneven clusters": grouped(100, uneven=True),
    "2 sets: 100 items in 10, 100 in 100": quadrant((100, 10), (100, 100)),
    "2 sets: 20 items, 200 items": quadrant((20, 20), (200, 200)),
}
WORLDS = ((0.9, 0.02), (0.6, 0.02), (0.6, 0.1))
"""Accuracy of the base, and the budget, which is the true loss at every look."""
DESIGNS = ((1, 1), (4, 1), (4, 3), (16, 3))
"""Looks and quadrants; many looks for a few shapes only."""
MANY_LOOKS = ("67 items", "30 uneven clusters")
LARGE = "1,000 items"
"""Only for power."""
HARD = ("67 items", "10 clusters of 10", "30 uneven clusters", "100 uneven clusters")
ENDS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""True losses at the last look."""


def looks_at(random: Random, items: Items, base: float, losses: Sequence[float]) -> tuple[Floats, list[Floats]]:
    """Right or wrong in the base and at every look of one run; the true losses are exactly `losses`."""
    before_N, shared_N = latent(random, items, [CLUSTER_SHARE]), latent(random, items, [CLUSTER_SHARE])
    after = []
    for loss in losses:
        look_N = latent(random, items, [CLUSTER_SHARE])
        moved_N = np.sqrt(SHARED) * shared_N + np.sqrt(1 - SHARED) * look_N
        now_N = AGREEMENT * before_N + np.sqrt(1 - AGREEMENT**2) * moved_N
        after.append(_right(now_N, base - loss))
    return _right(before_N, base), after


def _right(latent_N: Floats, share: float) -> Floats:
    return np.asarray(latent_N < special.ndtri(share), dtype=np.float64)


def rare_gains(random: Random, items: Items, base: float, losses: Sequence[float]) -> tuple[Floats, list[Floats]]:
    """As `looks_at`, where all clusters lose a little and one in twenty gains all that it can.

    The hardest world for a lower bound: a sample without such a cluster seems to lose more than the true loss, and has
    no spread. Clusters gain with chance g, the same ones at all looks; the others lose correspondingly more.
    """
    gain = 0.05
    before_N = (random.random(items.n) < base).astype(np.float64)
    gains_N = (random.random(int(items.codes[0].max()) + 1) < gain)[items.codes[0]]
    draw_N = random.random(items.n)
    after = []
    for loss in losses:
        share = (loss + gain * (1 - base)) / (1 - gain) / base
        after.append(np.where(gains_N, 1.0, before_N * (draw_N >= share)))
    return before_N, after


World = Callable[[Random, Items, float, Sequence[float]], tuple[Floats, list[Floats]]]


def false_stops(shape: str, world: World, base: float, budget: float, looks: int, groups: int, repetitions: int) -> Row:
    """How often a run that loses exactly the budget, in every quadrant at every look, is stopped."""
    items, test = SHAPES[shape], Budget(budget, groups, looks, ALPHA)

    def once(random: Random) -> Row:
        runs = [world(random, items, base, [budget] * looks) for _ in range(groups)]
        stopped = {"ours": False, "naive": False}
        for look in range(looks):
            losses = {str(k): _loss(before, after[look], items) for k, (before, after) in enumerate(runs)}
            verdicts = test.verdicts(look + 1, losses).values()
            stopped["ours"] |= any(verdict.is_broken for verdict in verdicts)
            stopped["naive"] |= any(_lower(loss) > budget for loss in losses.values())
        return stopped

    setting = {"items": shape, "base": base, "budget": budget, "looks": looks, "quadrants": groups}
    return repeat(setting | {"world": world.__name__}, repetitions, once)


def power(shape: str, end: float, looks: int, budget: float, repetitions: int) -> Row:
    """How often, and after which share of training, a run stops if its loss in one of three quadrants rises evenly."""
    items, test = SHAPES[shape], Budget(budget, 3, looks, ALPHA)
    rising = [end * (look + 1) / looks for look in range(looks)]
    at: list[float] = []

    def once(random: Random) -> Row:
        runs = [looks_at(random, items, 0.9, losses) for losses in (rising, [0.0] * looks, [0.0] * looks)]
        for look in range(looks):
            losses = {str(k): _loss(before, after[look], items) for k, (before, after) in enumerate(runs)}
            if any(verdict.is_broken for verdict in test.verdicts(look + 1, losses).values()):
                at.append((look + 1) / looks)
                return {"stopped": True}
        return {"stopped": False}

    row = repeat({"items": shape, "end": end, "looks": looks, "budget": budget}, repetitions, once)
    return row | {"at": 100 * float(np.mean(at)) if at else np.nan}


def _loss(before_N: Floats, after_N: Floats, items: Items) -> Estimate:
    weights = items.weights_N if len(set(items.strata)) > 1 else None
    return paired_difference(before_N, after_N, items.labels, weights, items.strata).difference


def _lower(loss: Estimate) -> float:
    """The bound of a single look at the whole level, as a test that does not know of the others would have it."""
    if not loss.stderr or loss.value is None:
        return -1.0
    return float(loss.value - special.stdtrit(loss.df, 1 - ALPHA) * loss.stderr)


def simulate(repetitions: int) -> dict[str, pd.DataFrame]:
    """Every table's rows."""
    few = max(2, repetitions // 4)
    stops = [
        false_stops(shape, looks_at, base, budget, looks, groups, few if looks > 4 else repetitions)
        for shape, (base, budget), (looks, groups) in product(SHAPES, WORLDS, DESIGNS)
        if shape != LARGE and (looks <= 4 or shape in MANY_LOOKS)
    ]
    hard = [
        false_stops(shape, rare_gains, 0.6, budget, looks, 3, few)
        for shape, budget, looks in product(HARD, (0.02, 0.1), (1, 4))
    ]
    power_rows = [
        power(shape, end, 4, 0.02, few)
        for shape, end in product(("67 items", "200 items", LARGE, "30 uneven clusters"), ENDS)
    ]
    power_rows += [power("200 items", end, 16, 0.02, few) for end in ENDS]
    return {"false stops": pd.DataFrame(stops), "rare gains": pd.DataFrame(hard), "power": pd.DataFrame(power_rows)}


def _false_stop_table(rows: pd.DataFrame) -> list[str]:
    """A line per shape, a column per design: the rate in the worst world, with and without correction."""
    heads = [f"{looks} x {groups}" for looks, groups in DESIGNS]
    lines = [_line(["items", *heads, *(f"naive, {head}" for head in heads)]), _line(["---"] * (1 + 2 * len(heads)))]
    for shape, part in rows.groupby("items", sort=False):
        cells = {
            name: [
                part[(part["looks"] == looks) & (part["quadrants"] == groups)][name].max() for looks, groups in DESIGNS
            ]
            for name in ("ours", "naive")
        }
        lines.append(_line([str(shape), *(_cell(float(value), "") for value in (*cells["ours"], *cells["naive"]))]))
    return lines


_POWER_HEADS = {
    "items": "items in a quadrant",
    "looks": "looks",
    "end": "loss at the end",
    "stopped": "stopped",
    "at": "after, %",
}


def _highest_by_chance(settings: int, repetitions: int) -> float:
    """Approximate highest of several simulated rates of exactly 5 %, in percent."""
    return 5 + _error(repetitions) * float(special.ndtri(settings / (settings + 1)))


def _error(repetitions: int) -> float:
    """Of a rate of 5 %, in points."""
    return float(100 * np.sqrt(0.05 * 0.95 / repetitions))


def _table(rows: pd.DataFrame, columns: dict[str, str]) -> list[str]:
    lines = [_line(list(columns.values())), _line(["---"] * len(columns))]
    return lines + [_line([_cell(row[name], name) for name in columns]) for row in rows.to_dict("records")]


def _cell(value: object, name: str) -> str:
    if name in ("budget", "end"):
        return f"{100 * float(value):g}"  # type: ignore[arg-type]
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.1f}"
    return str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(tables: dict[str, pd.DataFrame], repetitions: int) -> str:
    """The page, as Markdown."""
    stops, hard, few = tables["false stops"], tables["rare gains"], max(2, repetitions // 4)
    single, several = stops[stops["looks"] == 1], stops[stops["looks"] > 1]
    text = f"""\
# Does a budget of forgetting hold its level?

A run that loses exactly its budget, in every quadrant at every look, should be stopped in at most 5 % of cases. In the
worlds of section 1 it is stopped in {single["ours"].mean():.1f} % on average with a single look at one quadrant, and in
{several["ours"].mean():.1f} % with several looks, where the highest rate is {several["ours"].max():.1f} %. Among the
{len(single)} settings of a single look the highest is {single["ours"].max():.1f} %; of as many rates of exactly 5 % the
highest would be about {_highest_by_chance(len(single), repetitions):.1f} by chance. A test of each look and quadrant at
5 % by itself stops up to {several["naive"].max():.1f} %. A run that loses less than its budget is stopped less often.
Section 2 has a world in which the level does not hold.

Made by `python -m tools.guard_study` (about five minutes on one core) through the functions that judge a run,
`forgetbench/statistics/sequential.py`. There are {repetitions:,} repetitions of each setting, and {few:,}
of those with 16 looks and of sections 2 and 3, each setting from a seed of its own. Rates are percentages.
The Monte Carlo
standard error of 5 is {_error(repetitions):.1f} points, and {_error(few):.1f} with the fewer repetitions.
Items are right if a
latent normal value, 30 % of whose variance lies between clusters, is below a threshold. It correlates by .8 between the
base and a look, and {100 * SHARED:g} % of the variance of what a checkpoint changes is common to all checkpoints of the
run. Clusters are those of [coverage.md](coverage.md): ten items each, or *uneven* ones of 1 to some dozens.

## 1. False stops

*4 x 3* are four looks at three quadrants. Each figure is the highest over three worlds: bases of 60 and 90
%, budgets of
2 and 10 points. *Naive*: every look and quadrant tested at 5 %, by the interval of a single look.

{chr(10).join(_false_stop_table(stops))}

## 2. A world made to deceive it

Every cluster loses a little, but one in twenty gains all that it can, so that the mean loss is the budget. A
sample with
few such clusters seems to lose more than that, and its error does not know of them. The run is then stopped in up to
{hard["ours"].max():.1f} %. Items without clusters are safe here; clusters, and uneven ones most of all, are
not. A bound that
assumes nothing but independent clusters (a betting confidence sequence) holds there, but it never stops the run of 30
uneven clusters in section 3, even where it loses 30 points. So the guard has the t bound
([decision 0024](../decisions/0024-a-budget-while-training.md)). Three quadrants, a base of 60 %.

{chr(10).join(_table(hard, {name: name for name in ("items", "budget", "looks", "ours", "naive")}))}

## 3. Power

The loss in one of three quadrants rises evenly to *loss at the end*; the other two lose nothing. The budget
is 2 points,
the base 90 % right. *After* is the mean share of training at which the stopped runs stop.

{chr(10).join(_table(tables["power"], _POWER_HEADS))}
"""
    paragraphs = (
        paragraph if paragraph.startswith(("#", "|")) else textwrap.fill(paragraph, 120)
        for paragraph in text.strip().split("\n\n")
    )
    return "\n\n".join(paragraphs) + "\n"


def main() -> None:
    """Simulate, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--write", type=Path, default=OUT, help="the page")
    given = parser.parse_args()
    given.write.write_text(page(simulate(given.repetitions), given.repetitions), "utf-8")
    print(given.write)


if __name__ == "__main__":
    main()
