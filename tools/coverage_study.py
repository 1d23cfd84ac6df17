"""How often forgetbench's intervals cover the truth and its tests reject one, by simulation: settings and page.

python -m tools.coverage_study                                                  # docs/results/coverage.md and .svg
python -m tools.coverage_study --repetitions 100 --write coverage_small.md      # a smaller one, elsewhere
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.coverage_worlds import (
    Row,
    accuracy,
    crossed,
    datasets,
    grouped,
    paired,
    quadrant,
    rare_losses,
    rejections,
    seeds,
    sizes,
    two_ways,
    unclustered,
)

OUT = Path(__file__).resolve().parents[1] / "docs/results/coverage.md"
REPETITIONS = 2_000
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""An accuracy p is covered as often as 1 - p: right and wrong change places."""
CLUSTERS = (10, 30, 100, 300)
ALTERNATIVE = -0.05
CROSSED = {
    "10 images x 100 facts": crossed(10, 100),
    "30 images x 30 facts": crossed(30, 30),
    "50 images x 50 facts, a fifth of the pairs": crossed(50, 50, 0.2),
}
VARIANCES = ((0.15, 0.15), (0.15, 0.0), (0.0, 0.0))
QUADRANTS = {
    "300 in 100, 300 in 100": quadrant((300, 100), (300, 100)),
    "300 in 10, 300 in 300": quadrant((300, 10), (300, 300)),
    "300 in 10, 300 in the same 10": quadrant((300, 10), (300, 10), same_clusters=True),
    "300 in 30, 300 in the same 30": quadrant((300, 30), (300, 30), same_clusters=True),
    "20, 1,000": quadrant((20, 20), (1000, 1000)),
    "5, 1,000": quadrant((5, 5), (1000, 1000)),
}
CHANGES = ((0.6, (-0.1, -0.1)), (0.9, (-0.2, 0.0)), (0.98, (-0.04, 0.0)))
"""Accuracy before, and the change of each dataset."""


def simulate(repetitions: int) -> dict[str, pd.DataFrame]:
    """Every table's rows; the slower settings get half the repetitions."""
    half = max(repetitions // 2, 2)
    often = {n: half if n == max(CLUSTERS) else repetitions for n in CLUSTERS}
    two_datasets = quadrant((200, 20), (500, 50))
    tables: dict[str, list[Row]] = {
        "accuracy": [
            accuracy(share, n_clusters, correlation, uneven, often[n_clusters])
            for n_clusters, correlation, uneven, share in product(CLUSTERS, (0.1, 0.3), (False, True), SHARES)
        ],
        "unclustered": [unclustered(share, n) for n, share in product(CLUSTERS, SHARES)],
        "paired": [
            paired(base, n_clusters, change, uneven, often[n_clusters])
            for base, n_clusters, uneven, change in product((0.6, 0.9), CLUSTERS, (False, True), (0.0, -0.02, -0.1))
        ],
        "rare losses": [rare_losses(n) for n in (30, 100, 300, 1000, 3000)],
        "two ways": [
            two_ways(name, items, shares, truth, repetitions)
            for (name, items), shares, truth in product(CROSSED.items(), VARIANCES, (0.5, 0.9))
        ],
        "datasets": [
            datasets(name, items, base, changes, half)
            for (name, items), (base, changes) in product(QUADRANTS.items(), CHANGES)
        ],
        "tests": [
            *(
                rejections(f"{n} clusters, {sizes(uneven)} sizes", grouped(n, uneven), change, repetitions)
                for n, uneven, change in product((10, 30, 100), (False, True), (0.0, ALTERNATIVE))
            ),
            *(
                rejections(f"{n} clusters, lopsided", grouped(n), change, repetitions, lopsided=True)
                for n, change in product((10, 30, 100), (0.0, ALTERNATIVE))
            ),
            *(
                rejections("two datasets of 20 and 50 clusters, weight 1/2 each", two_datasets, change, half)
                for change in (0.0, ALTERNATIVE)
            ),
            *(
                rejections(name, items, change, half)
                for (name, items), change in product(CROSSED.items(), (0.0, ALTERNATIVE))
            ),
        ],
        "seeds": [
            seeds(n_seeds, ratio, half, n_clusters)
            for n_clusters, n_seeds, ratio in product((10, 30, 100), (2, 3, 5, 10), (0.25, 1.0, 3.0))
            if n_clusters == 30 or n_seeds == 3
        ],
    }
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


def page(tables: dict[str, pd.DataFrame]) -> str:
    """The results as Markdown: the answer first, then a section for each question."""
    accuracies, paireds, checks, runs = (tables[name] for name in ("accuracy", "paired", "tests", "seeds"))
    full, half = accuracies["repetitions"].max(), runs["repetitions"].max()
    parts = [
        "# Do the intervals cover, and do the tests hold their level?",
        answer(tables),
        "Made by `python -m tools.coverage_study` (about nine minutes on one core) through the functions that make a "
        f"run's tables. Every setting that is not exact is simulated {full:,} times, from a seed of its own; those "
        f"of 300 clusters and those whose section says so {half:,} times. Rates are percentages. The Monte Carlo "
        f"standard error of one is {_noise(95, full)} points where it is 95, {_noise(75, full)} at 75 and "
        f"{_noise(5, full)} at 5; with half the repetitions {_noise(95, half)}, {_noise(75, half)} and "
        f"{_noise(5, half)}. *Naive*: clusters are ignored. Equal clusters have ten items, uneven ones the sizes of "
        "an exponential distribution of mean ten (1 to 30 items among 10 clusters, 1 to 64 among 300). What is "
        "simulated has the shape that the formulas assume: clusters (seeds, images, facts) that are drawn "
        "independently and alike, and whose size says nothing of their difficulty. The page shows nothing about "
        "data of another shape.",
        "![Coverage against accuracy](coverage.svg)",
        "## 1. Accuracy over clustered items",
        "Right and wrong are beta-binomial; *correlation* is that of two items of a cluster. The naive interval is "
        "Wilson's over items. An accuracy of 98 % is covered as often as one of 2 %, and so on. *Worst* is the lowest "
        "from 20 to 50; *all alike* is the share of samples at 2 whose answers are all right or all wrong. Their "
        "interval is what such a sample leaves open.",
        _table(_by_accuracy(accuracies)),
        "## 2. Accuracy over unclustered items",
        "Exact, from the binomial distribution, for 10 to 300 items: Wilson's interval (*ours*), and the t interval "
        "that items would get if they were clustered.",
        _table(_wide(tables["unclustered"], ["p"], "items", ("ours", "t"))),
        "## 3. Paired change over clustered items",
        f"True changes of 0, -2 and -10 points from a base accuracy. {PAIRED_WORLD} Naive is the normal interval over "
        "items.",
        _table(_wide(paireds, ["base", "clusters", "sizes"], "change", ("ours", "naive"))),
        "## 4. Accuracy over images crossed with facts",
        "*Variance* is what images and facts have of the latent variance. By images or by facts is our own interval "
        "with that one way of clustering.",
        _table(_wide(tables["two ways"], ["items", "variance"], "p", ("ours", "by images", "by facts", "naive"))),
        "## 5. Quadrant means of two datasets",
        "Two datasets with equal weight, of items in clusters (300 in 10) or items alone (20). *Accuracies* are "
        f"before and, for each dataset, after. {PAIRED_WORLD} The same clusters have the same effect on both "
        "datasets. The *mean* is that after, the *change* the paired one. *Ours* corrects each dataset for its own "
        "clusters and weighs the degrees of freedom (Satterthwaite); *together* multiplies the variance by C / (C-1) "
        "and takes C-1 degrees of freedom, C being all clusters. *First unchanged* is the share of samples in which "
        "no answer of the first dataset changed. *TOST*: how often the change is claimed to be smaller than it is. "
        f"{half:,} repetitions.",
        _table(tables["datasets"].drop(columns="repetitions")),
        "## 6. Tests of no change at the 5 % level",
        "How often each rejects if the true change is 0 (5 or less is right), and if it is -5 points (power). The t "
        "test takes our standard error; McNemar's exact test ignores clusters and weights. Lopsided: a fifth of the "
        "clusters lose 30 points and the others gain 7.5, so that the mean change is the stated one and yet a "
        "cluster's change is not as likely as its negative. Two datasets, two ways: "
        f"{checks['repetitions'].min():,} repetitions.",
        _table(_wide(checks, ["items"], "change", ("sign flips", "t test", "McNemar"))),
        "## 7. Equivalence (TOST) at the 5 % level",
        "In the simulations of section 3, how often a change is claimed to lie within a margin of 2 or 10 points: if "
        "it is that margin (5 or less is right), and if it is 0 (power).",
        _table(_claims(paireds)),
        "Rare losses, exact: unclustered items that were all right before, each lost with a chance of 2 %. The "
        "coverage is that of the paired change; samples with *none lost* get the interval that no change leaves open. "
        "The last column is again the share of claims that the change lies within 2 points.",
        _table(tables["rare losses"]),
        "## 8. Several seeds",
        f"A change of -10 points; half of what moves an item is the same in all seeds. {PAIRED_WORLD} *Seed SD* is "
        "that of the seeds' true means in units of one run's error between items. *Ours* is the interval of "
        "`over_seeds`, *items only* the t interval of the mean over seeds from the error between items, "
        "*percentiles* the plain bootstrap of seeds and clusters. *Error* is our standard error (root mean square) "
        "over the actual one: 1 is right. *TOST*: how often the change is claimed to lie within 10 points, which it "
        f"does not. {half:,} repetitions.",
        _table(runs.drop(columns="repetitions")),
    ]
    return "\n\n".join(_wrapped(part) for part in parts) + "\n"


def _wrapped(part: str) -> str:
    """A paragraph, and the list after it, in lines of at most 120 characters; not tables, headings, pictures."""
    if part.startswith(("|", "#", "!")):
        return part
    paragraph, *points = re.split(r"\n+(?=- )", part)
    lines = [_filled(paragraph), ""] if points else [_filled(paragraph)]
    return "\n".join(lines + [_filled(point, "  ") for point in points])


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


PAIRED_WORLD = (
    "An item is right if a latent normal value, 30 % of whose variance lies between clusters, is below a threshold; "
    "before and after correlate by .8."
)


ANSWER = """\
Mean coverage of our accuracy intervals is {mean:.1f} % (Monte Carlo standard error {error:.2f}) over accuracies from 20
to 50 %, whose mirror images are those from 50 to 80, and at least 100 clusters, {verdict} one point of the 95 % they
state. Intervals that ignore the clusters cover {naive:.1f} % there. In single settings the two cover {middle} and
{middle_naive}. Near what they state are also paired changes with at least 100 clusters ({paired}; naive
{paired_naive}), images crossed with facts ({crossed}, the lowest with 10 images; naive {crossed_naive}), the sign-flip
test (rejects a true null in {flips}, McNemar's in {mcnemar}), and three or more seeds (at least {seeds}; items alone
down to {items_only}, percentiles to {percentiles}). Coverage is too low with few or uneven clusters, for accuracies
near 0 or 100 %, and where one dataset of a quadrant has so few items that none of them may change. TOST claims
equivalence somewhat too often.

- *Few or uneven clusters.* Accuracies from 20 to 50 % with 10 equal clusters: {ten_equal}; with 10 uneven ones
{ten_uneven}; with 100 uneven ones at a correlation of .3 {hundred_uneven:.1f} on average. A few large clusters then
carry the error, and C-1 degrees of freedom count all of them alike. The t test, which takes the same error, rejects a
true null in up to {t_test:.1f}.
- *Accuracies near 0 or 100.* Intervals of an accuracy of 2 or 98 % cover {edge_30} with 30 clusters, {edge_100} with
100 and {edge_300} with 300: few clusters hold the rare answers, and the error is small where they are missing. With 10
clusters they cover {edge_ten}, as up to {alike_ten:.0f} % of the samples are all right or all wrong and get the wide
interval that they leave open; at 10 or 90 %, where few samples are, {tenth_ten}. Unclustered accuracies get Wilson's
interval instead and cover at least {wilson:.1f}. Unclustered changes that are losses of 2 % cover at least {rare:.1f}
(section 7).
- *Quadrants.* A correction for each dataset helps where their clusters are unequal in number. With 300 items in 10
clusters beside 300 in 300, accuracies of 50 to 90 % and their changes cover {unequal}, and {unequal_together} if all
clusters are taken together. It does not help where both datasets lie on the same 10 clusters: {same}, and
{same_together} together, as the degrees of freedom of both are added up though their clusters are the same. Neither
interval holds if all answers of a small dataset may be alike, as it then adds no error, and the large one's degrees of
freedom count: with 20 items beside 1,000 coverage is down to {twenty:.1f} at 94 and 98 % ({twenty_most} at 50 to 90),
and with 5 items to {five:.1f}. Near 100 % ten clusters are too few here too: {near_edge}. What a sample without any
change leaves open is asked for the quadrant, not for each of its datasets.
- *Equivalence.* If the change is as large as the margin, 10 points, it is claimed to be smaller in {tost} of cases with
at least 100 clusters and in {tost_few} with fewer, where 5 is right: a sample with few losses has a small change and a
small error at once. In quadrants a change is claimed to be smaller than it is in up to {tost_quadrant:.1f}, where the
dataset with 10 clusters has all the losses. Of rare losses of unclustered items it is at most {tost_rare:.1f}. That no
change at all lies within 2 points is claimed in at most {power_few:.1f} of cases, but with 300 clusters at 90 % in
{power}: most of these tables are too small to claim it.
- *Two seeds* whose true means lie far apart: {two_seeds:.1f}, as two that agree by chance hide the error between seeds.
- *Seeds that hardly differ* get intervals that are too wide: {alike}, from standard errors up to {wide:.2f} times the
actual ones. An item's noise within a seed counts as an error of items, of seeds, and of both together."""


def answer(tables: dict[str, pd.DataFrame]) -> str:
    """The summary at the top of the page."""
    rows, crosses, runs, sets = (tables[name] for name in ("accuracy", "two ways", "seeds", "datasets"))
    edge, tenth, rows = rows.query("p == 0.02"), rows.query("p == 0.1"), rows.query("p >= 0.2")
    middle, changes, rare = rows.query("clusters >= 100"), tables["paired"], tables["rare losses"]
    many, null, margin = changes.query("clusters >= 100"), tables["tests"].query("change == 0"), "change == -0.1"
    ten, far, near = rows.query("clusters == 10"), runs.query("`seed SD` == 3"), runs.query("`seed SD` == 0.25")
    is_edge = sets["accuracies"].str.startswith("98")
    common = sets[~is_edge]
    unequal, same, twenty, five = (
        rows[rows["datasets"] == name]
        for rows, name in (
            (common, "300 in 10, 300 in 300"),
            (common, "300 in 10, 300 in the same 10"),
            (common, "20, 1,000"),
            (sets, "5, 1,000"),
        )
    )
    is_strong = (changes["clusters"] == max(CLUSTERS)) & (changes["base"] == 0.9)
    mean = middle["ours"].mean()
    return ANSWER.format(
        mean=mean,
        error=np.sqrt((middle["ours"] * (100 - middle["ours"]) / middle["repetitions"]).sum()) / len(middle),
        verdict="within" if abs(mean - 95) <= 1 else "not within",
        naive=middle["naive"].mean(),
        middle=_span(middle["ours"]),
        middle_naive=_span(middle["naive"]),
        paired=_span(many["ours"]),
        paired_naive=_span(many["naive"]),
        crossed=_span(crosses["ours"]),
        crossed_naive=_span(crosses["naive"]),
        flips=_span(null["sign flips"]),
        mcnemar=_span(null["McNemar"]),
        seeds=f"{runs.query('seeds > 2')['ours'].min():.1f}",
        items_only=f"{runs.query('seeds > 2')['items only'].min():.1f}",
        percentiles=f"{runs.query('seeds > 2')['percentiles'].min():.1f}",
        ten_equal=_span(ten.query("sizes == 'equal'")["ours"]),
        ten_uneven=_span(ten.query("sizes == 'uneven'")["ours"]),
        hundred_uneven=rows.query("clusters == 100 and sizes == 'uneven' and correlation == 0.3")["ours"].mean(),
        t_test=null["t test"].max(),
        edge_ten=_span(edge.query("clusters == 10")["ours"]),
        edge_30=_span(edge.query("clusters == 30")["ours"]),
        edge_100=_span(edge.query("clusters == 100")["ours"]),
        edge_300=_span(edge.query("clusters == 300")["ours"]),
        alike_ten=edge.query("clusters == 10")["all alike"].max(),
        tenth_ten=_span(tenth.query("clusters == 10")["ours"]),
        wilson=tables["unclustered"]["ours"].min(),
        rare=rare["ours"].min(),
        unequal=_span(unequal[["mean, ours", "change, ours"]]),
        unequal_together=_span(unequal[["mean, together", "change, together"]]),
        same=_span(same[["mean, ours", "change, ours"]]),
        same_together=_span(same[["mean, together", "change, together"]]),
        twenty=sets.query("datasets == '20, 1,000'")[["mean, ours", "change, ours"]].min().min(),
        twenty_most=_span(twenty[["mean, ours", "change, ours"]]),
        five=five[["mean, ours", "change, ours"]].min().min(),
        near_edge=_span(sets[is_edge & sets["datasets"].str.startswith("300 in 10,")][["mean, ours", "change, ours"]]),
        tost=_span(many.query(margin)["margin 10"]),
        tost_few=_span(changes.query(margin).query("clusters < 100")["margin 10"]),
        tost_quadrant=sets["TOST"].max(),
        tost_rare=rare["margin 2, -2"].max(),
        power_few=changes[~is_strong].query("change == 0")["margin 2"].max(),
        power=_span(changes[is_strong].query("change == 0")["margin 2"]),
        two_seeds=far.query("seeds == 2")["ours"].min(),
        alike=_span(near["ours"]),
        wide=near["error"].max(),
    )


def _span(rates: pd.Series[float] | pd.DataFrame) -> str:
    return f"{np.min(rates.to_numpy()):.1f} to {np.max(rates.to_numpy()):.1f}"


def _noise(percentage: float, repetitions: int) -> str:
    """The Monte Carlo standard error of one setting."""
    return f"{np.sqrt(percentage * (100 - percentage) / repetitions):.1f}"


def _wide(rows: pd.DataFrame, index: list[str], by: str, names: Sequence[str]) -> pd.DataFrame:
    """A row for each setting of `index`, and a column for each outcome at each value of `by`."""
    wide = rows.pivot_table(list(names), index, by, sort=False)
    columns = list(product(names, rows[by].unique()))
    wide = wide[columns]
    wide.columns = pd.Index([f"{name}, {_cell(by, value)}" for name, value in columns])
    return wide.reset_index()


def _by_accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    index, is_middle = ["clusters", "correlation", "sizes"], rows["p"] >= 0.2
    named = rows.assign(p=["20 to 50" if p >= 0.2 else f"{100 * p:g}" for p in rows["p"]])
    out = _wide(named, index, "p", ("ours", "naive")).set_index(index)
    out.insert(4, "ours, worst", rows[is_middle].groupby(index)["ours"].min())
    out["all alike"] = rows[rows["p"] == min(SHARES)].groupby(index)["all alike"].mean()
    return out.reset_index()


def _claims(rows: pd.DataFrame) -> pd.DataFrame:
    index = ["base", "clusters", "sizes"]
    claimed = _wide(rows, index, "change", ("margin 2", "margin 10"))
    return claimed[[*index, "margin 2, -2", "margin 10, -10", "margin 2, 0", "margin 10, 0"]]


def _table(rows: pd.DataFrame) -> str:
    lines = [list(rows.columns), ["---"] * rows.shape[1]]
    lines += [[_cell(str(name), value) for name, value in row.items()] for row in rows.to_dict("records")]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(name: str, value: Any) -> str:
    """A cell: settings that are fractions of 1 as percentages, simulated rates with one decimal."""
    if not isinstance(value, float):
        return str(value)
    if name in {"p", "base", "change"}:
        return f"{100 * value:g}"
    return f"{value:g}" if name in {"correlation", "seed SD"} else f"{value:.{2 if name == 'error' else 1}f}"


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Coverage of accuracies against the accuracy: a row of panels for equal sizes and one for uneven ones."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "forgetbench"  # the same figure, the same bytes
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 4, figsize=(12, 6), sharex=True, sharey=True, layout="constrained")
    for (size, n_clusters), panel in zip(product(("equal", "uneven"), CLUSTERS), panels.flat, strict=True):
        panel.axhspan(94, 96, color="0.85", label="94 to 96 %")
        for correlation, line in ((0.1, "-"), (0.3, "--")):
            panel_rows = rows.query("sizes == @size and clusters == @n_clusters and correlation == @correlation")
            for name, color in (("ours", "C0"), ("naive", "C1")):
                label = f"{name}, correlation {correlation}"
                panel.plot(
                    100 * panel_rows["p"], panel_rows[name], line, marker=".", ms=4, lw=1.2, color=color, label=label
                )
        panel.set_title(f"{n_clusters} clusters, {size} sizes", fontsize=10)
        panel.grid(alpha=0.3)
    figure.supxlabel("true accuracy, % (an accuracy of 100 - p is covered as often as one of p)", fontsize=10)
    figure.supylabel("coverage of 95 % intervals, %", fontsize=10)
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=9)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Simulate, and write the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="of a setting")
    parser.add_argument("--write", type=Path, default=OUT, help="the page; its figure goes beside it")
    options = parser.parse_args()
    tables = simulate(options.repetitions)
    options.write.write_text(page(tables), "utf-8")
    draw(tables["accuracy"], options.write.with_suffix(".svg"))


if __name__ == "__main__":
    main()
