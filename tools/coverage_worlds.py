"""Simulated worlds of known truth, and for each setting of one a row of how often the statistics are right.

`tools.coverage_study` says which settings, and makes the page.

Legend: N items, C clusters, G datasets, S seeds, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]

from forgetbench.statistics.intervals import Estimate, clustered_mean, linear_estimate, paired_difference
from forgetbench.statistics.ratios import clustered_ratio
from forgetbench.statistics.seeds import RESAMPLES, SeedEstimate, over_seeds
from forgetbench.statistics.significance import equivalence_p, sign_flip_p, t_test_p
from forgetbench.statistics.strata import Codes, Floats
from forgetbench.tables.yes_no import YesNoCounts

ITEMS_EACH = 10
BASE, AGREEMENT = 0.6, 0.8
"""Accuracy before, and the correlation of an item's latent values before and after."""
CLUSTER_SHARE = 0.3
"""Share of the latent variance that lies between clusters."""
Random = np.random.Generator
Row = dict[str, Any]


@dataclass(frozen=True)
class Items:
    """How N items cluster, one way or two ways, and their weights."""

    codes: tuple[Codes, ...]
    labels: tuple[Sequence[str], ...]
    dataset_N: Codes
    strata: Sequence[str]
    weights_N: Floats

    @property
    def n(self) -> int:
        """How many."""
        return self.codes[0].size


def grouped(n_clusters: int, uneven: bool = False) -> Items:
    """Clusters of ten items, or of one to a few dozen: the quantiles of an exponential distribution of mean ten."""
    ranks = (np.arange(n_clusters) + 0.5) / n_clusters
    sizes = np.ceil(-ITEMS_EACH * np.log1p(-ranks)).astype(int) if uneven else np.full(n_clusters, ITEMS_EACH)
    return items_of([np.repeat(np.arange(n_clusters), sizes)])


def crossed(n_a: int, n_b: int, filled: float = 1.0) -> Items:
    """One item for each pair of an image and a fact, or for a fixed random share of the pairs."""
    a_N, b_N = np.divmod(np.arange(n_a * n_b), n_b)
    is_filled = np.random.default_rng(0).random(a_N.size) < filled
    return items_of([a_N[is_filled], b_N[is_filled]])


def quadrant(*datasets: tuple[int, int], same_clusters: bool = False) -> Items:
    """Datasets of (items, clusters) with equal weight, on separate clusters or on the same ones."""
    sizes = [n for n, _ in datasets]
    first = [0 if same_clusters else sum(c for _, c in datasets[:place]) for place in range(len(datasets))]
    parts = [start + np.arange(n) * c // n for start, (n, c) in zip(first, datasets, strict=True)]
    return items_of([np.concatenate(parts)], np.repeat(np.arange(len(datasets)), sizes))


def items_of(codes: Sequence[Codes], dataset_N: Codes | None = None) -> Items:
    """Items of these clusters; those of several datasets count so that every dataset counts the same."""
    group_N = np.zeros(codes[0].size, dtype=np.int64) if dataset_N is None else dataset_N
    counts_G = np.bincount(group_N)
    return Items(
        codes=tuple(codes),
        labels=tuple(_text(code_N) for code_N in codes),
        dataset_N=group_N,
        strata=_text(group_N),
        weights_N=1 / (counts_G.size * counts_G[group_N]),
    )


def _text(codes: Codes) -> list[str]:
    return [str(code) for code in codes.tolist()]


def right_and_wrong(random: Random, share: float, correlation: float, items: Items) -> Floats:
    """Beta-binomial answers: `correlation` between two items of one cluster, each right with chance `share`."""
    spread = (1 - correlation) / correlation
    chance_C = random.beta(share * spread, (1 - share) * spread, int(items.codes[0].max()) + 1)
    return (random.random(items.n) < chance_C[items.codes[0]]).astype(np.float64)


def latent(random: Random, items: Items, shares: Sequence[float]) -> Floats:
    """N standard normal values; `shares` of the variance belong to the clusters of each way."""
    out: Floats = np.sqrt(1 - sum(shares)) * random.normal(size=items.n)
    for code_N, part in zip(items.codes, shares, strict=True):
        out += np.sqrt(part) * random.normal(size=int(code_N.max()) + 1)[code_N]
    return out


def before_and_after(
    random: Random, items: Items, shares: Sequence[float], change: float | Floats, base: float = BASE
) -> tuple[Floats, Floats]:
    """Right or wrong before and after; the true change of accuracy is exactly `change`."""
    first_N = latent(random, items, shares)
    second_N = AGREEMENT * first_N + np.sqrt(1 - AGREEMENT**2) * latent(random, items, shares)
    return _below(first_N, base), _below(second_N, base + change)


def _below(latent_N: Floats, share: float | Floats) -> Floats:
    return np.asarray(latent_N < special.ndtri(share), dtype=np.float64)


@cache
def wilson(right: int, n: int) -> Estimate:
    """The package's interval for unclustered items."""
    return clustered_mean(np.arange(n) < right, [_text(np.arange(n))])


def change_of(after_N: Floats, before_N: Floats, items: Items) -> SeedEstimate:
    """The change as TOST needs it; with a single seed, value and interval are those of `paired_difference`."""
    return over_seeds([after_N - before_N], items.labels, items.weights_N, items.strata)


def together(y_N: Floats, items: Items) -> Estimate:
    """The mean of datasets with a joint correction C / (C - 1), and C - 1 degrees of freedom, for all clusters."""
    w_N, group_N = items.weights_N, items.dataset_N
    center_G = np.bincount(group_N, w_N * y_N) / np.bincount(group_N, w_N)
    return linear_estimate(float(w_N @ y_N), w_N * (y_N - center_G[group_N]), items.labels)


def covers(estimate: Estimate | SeedEstimate, truth: float) -> bool:
    """Whether the interval holds the truth, but for rounding."""
    low, high = estimate.ci_low, estimate.ci_high
    return low is not None and high is not None and low - 1e-12 <= truth <= high + 1e-12


def within(value: float, half: float, truth: float) -> bool:
    """Whether value +- half holds the truth."""
    return abs(value - truth) <= half


def is_small(p_value: float | None) -> bool:
    """Whether a test at the 5 % level claims something; none without a p-value."""
    return p_value is not None and p_value <= 0.05


def repeat(setting: Row, repetitions: int, once: Callable[[Random], Row]) -> Row:
    """The setting with the percentage of the repetitions, seeded by the setting, in which each outcome is true."""
    random = np.random.default_rng(list(repr(setting).encode()))
    hits = pd.DataFrame([once(random) for _ in range(repetitions)])
    row = setting | {"repetitions": repetitions}
    if "value" in hits:
        values, stderrs = hits.pop("value"), hits.pop("stderr")
        row["error"] = float(np.sqrt((stderrs**2).mean()) / values.std())
    return row | {str(name): 100 * float(share) for name, share in hits.mean().items()}


def accuracy(share: float, n_clusters: int, correlation: float, uneven: bool, repetitions: int) -> Row:
    """Coverage of an accuracy's interval over clustered items, ours and the one that ignores clusters."""
    items = grouped(n_clusters, uneven)

    def once(random: Random) -> Row:
        y_N = right_and_wrong(random, share, correlation, items)
        ours = clustered_mean(y_N, items.labels)
        naive = wilson(int(y_N.sum()), items.n)
        return {"ours": covers(ours, share), "naive": covers(naive, share), "all alike": y_N.min() == y_N.max()}

    setting = {"p": share, "clusters": n_clusters, "correlation": correlation, "sizes": sizes(uneven)}
    return repeat(setting, repetitions, once)


def sizes(uneven: bool) -> str:
    """A word for how large clusters are."""
    return "uneven" if uneven else "equal"


def binomial(right: NDArray[np.int64], n: int, share: float) -> Floats:
    """The chance of each number right of n."""
    log_ways = special.gammaln(n + 1) - special.gammaln(right + 1) - special.gammaln(n - right + 1)
    return np.asarray(np.exp(log_ways + right * np.log(share) + (n - right) * np.log1p(-share)))


def unclustered(share: float, n: int) -> Row:
    """Exact coverage of our interval for unclustered items, and of the t interval that clusters get."""
    right = np.arange(n + 1)
    chance = binomial(right, n, share)
    estimates = [wilson(int(k), n) for k in right]
    t = special.stdtrit(n - 1, 0.975)
    by_t = [within(float(estimate.value or 0), t * float(estimate.stderr or 0), share) for estimate in estimates]
    ours = [covers(estimate, share) for estimate in estimates]
    return {"p": share, "items": n, "ours": 100 * float(chance @ ours), "t": 100 * float(chance @ by_t)}


def yes_no(n_items: int, recall: float, alarms: float, repetitions: int) -> Row:
    """Coverage of precision, recall and F1 of unclustered questions, half of them to be answered yes.

    Args:
        n_items: how many.
        recall: chance of a yes where it is right.
        alarms: chance of a yes where it is wrong.
        repetitions: how often they are asked.
    """
    is_true_N, items = np.arange(n_items) % 2 == 0, items_of([np.arange(n_items)])
    truth = {"precision": recall / (recall + alarms), "recall": recall, "F1": 2 * recall / (1 + recall + alarms)}

    def once(random: Random) -> Row:
        says_N = random.random(n_items) < np.where(is_true_N, recall, alarms)
        counts = YesNoCounts(*(1.0 * mask for mask in (says_N & is_true_N, says_N & ~is_true_N, ~says_N & is_true_N)))
        parts = {"precision": counts.precision, "recall": counts.recall, "F1": counts.f1}
        estimates = {name: clustered_ratio(part(items.labels)) for name, part in parts.items()}
        f1 = estimates["F1"]
        half = special.stdtrit(f1.df, 0.975) * f1.stderr if f1.df is not None and f1.stderr is not None else 0.0
        by_t = f1.value is not None and within(f1.value, float(half), truth["F1"])
        return {name: covers(estimate, truth[name]) for name, estimate in estimates.items()} | {"F1 by t": by_t}

    setting = {"items": n_items, "true yes": recall, "false yes": alarms}
    return repeat(setting, repetitions, once)


def paired(base: float, n_clusters: int, change: float, uneven: bool, repetitions: int) -> Row:
    """Coverage of a paired change, and how often TOST claims that it is within 2 and 10 points."""
    items = grouped(n_clusters, uneven)

    def once(random: Random) -> Row:
        before_N, after_N = before_and_after(random, items, [CLUSTER_SHARE], change, base)
        ours, change_N = change_of(after_N, before_N, items), after_N - before_N
        naive = within(float(change_N.mean()), 1.96 * float(change_N.std(ddof=1)) / np.sqrt(items.n), change)
        claims = {f"margin {100 * margin:g}": is_small(equivalence_p(ours, margin)) for margin in (0.02, 0.1)}
        return {"ours": covers(ours, change), "naive": naive, "none changed": not change_N.any(), **claims}

    setting = {"base": base, "clusters": n_clusters, "change": change, "sizes": sizes(uneven)}
    return repeat(setting, repetitions, once)


def rare_losses(n: int, loss: float = 0.02) -> Row:
    """Exact coverage and TOST where every one of n unclustered items was right and each is lost with chance `loss`."""
    lost = np.arange(min(n, int(n * loss + 12 * np.sqrt(n * loss))) + 1)
    items = items_of([np.arange(n)])
    changes = [change_of((np.arange(n) >= k).astype(np.float64), np.ones(n), items) for k in lost]
    chance = binomial(lost, n, loss)
    covered = float(chance @ [covers(estimated, -loss) for estimated in changes])
    claimed = float(chance @ [is_small(equivalence_p(estimated, loss)) for estimated in changes])
    return {"items": n, "none lost": 100 * float(chance[0]), "ours": 100 * covered, "margin 2, -2": 100 * claimed}


def two_ways(name: str, items: Items, shares: Sequence[float], truth: float, repetitions: int) -> Row:
    """Coverage of an accuracy over images x facts: two-way, by the way with fewer clusters, by the other, by none."""

    def once(random: Random) -> Row:
        y_N = _below(latent(random, items, shares), truth)
        estimates = {"ours": clustered_mean(y_N, items.labels)}
        estimates |= {f"by {way}": clustered_mean(y_N, [items.labels[i]]) for i, way in enumerate(("images", "facts"))}
        estimates["naive"] = wilson(int(y_N.sum()), items.n)
        return {label: covers(estimate, truth) for label, estimate in estimates.items()}

    return repeat({"items": name, "variance": " + ".join(f"{s:g}" for s in shares), "p": truth}, repetitions, once)


def datasets(name: str, items: Items, base: float, changes: Sequence[float], repetitions: int) -> Row:
    """Coverage of a quadrant's mean after and of its change: a correction for each dataset, or one for all clusters.

    TOST: how often the change is claimed to lie within itself.
    """
    change = float(np.mean(changes))
    truth, change_N = base + change, np.asarray(changes)[items.dataset_N]

    def once(random: Random) -> Row:
        before_N, after_N = before_and_after(random, items, [CLUSTER_SHARE], change_N, base)
        ours = change_of(after_N, before_N, items)
        return {
            "mean, ours": covers(clustered_mean(after_N, items.labels, items.weights_N, items.strata), truth),
            "mean, together": covers(together(after_N, items), truth),
            "change, ours": covers(ours, change),
            "change, together": covers(together(after_N - before_N, items), change),
            "first unchanged": not (after_N - before_N)[items.dataset_N == 0].any(),
            "TOST": is_small(equivalence_p(ours, abs(change))),
        }

    moved = " and ".join(f"{100 * (base + dataset_change):g}" for dataset_change in changes)
    return repeat({"datasets": name, "accuracies": f"{100 * base:g} to {moved}"}, repetitions, once)


def rejections(name: str, items: Items, change: float, repetitions: int, lopsided: bool = False) -> Row:
    """How often the tests find a change at the 5 % level.

    Lopsided: a fifth of the clusters lose 30 points and the others gain 7.5, so that the mean change is `change` still.
    """
    shares = [CLUSTER_SHARE] if len(items.codes) == 1 else [CLUSTER_SHARE / 2] * 2
    n_clusters = int(items.codes[0].max()) + 1

    def once(random: Random) -> Row:
        moved_C = np.where(random.random(n_clusters) < 0.2, -0.3, 0.075) if lopsided else np.zeros(n_clusters)
        before_N, after_N = before_and_after(random, items, shares, change + moved_C[items.codes[0]])
        change_N = after_N - before_N
        ours = paired_difference(after_N, before_N, items.labels, items.weights_N, items.strata).difference
        p_values = {"sign flips": sign_flip_p(change_N, items.labels, items.weights_N), "t test": t_test_p(ours)}
        lost, gained = int((change_N < 0).sum()), int((change_N > 0).sum())
        p_values["McNemar"] = min(1.0, 2 * float(special.bdtr(min(lost, gained), lost + gained, 0.5)))
        return {test: is_small(p) for test, p in p_values.items()}

    return repeat({"items": name, "change": change}, repetitions, once)


def seeds(n_seeds: int, ratio: float, repetitions: int, n_clusters: int = 30, change: float = -0.1) -> Row:
    """Coverage of a mean change over seeds whose true means vary by `ratio` times the error between items."""
    items, shares = grouped(n_clusters), [CLUSTER_SHARE]
    seed_sd = ratio * item_error(n_clusters, change)
    draw = np.random.default_rng(1)
    seeds_BS = draw.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), RESAMPLES) / n_seeds
    clusters_BC = draw.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), RESAMPLES) / n_clusters

    def once(random: Random) -> Row:
        first_N, common_N = latent(random, items, shares), latent(random, items, shares)
        after = [
            AGREEMENT * first_N + np.sqrt((1 - AGREEMENT**2) / 2) * (common_N + latent(random, items, shares))
            for _ in range(n_seeds)
        ]
        moved_S = BASE + change + seed_sd * random.normal(size=n_seeds)
        values = [_below(z_N, share) - _below(first_N, BASE) for z_N, share in zip(after, moved_S, strict=True)]
        ours = over_seeds(values, items.labels, items.weights_N, items.strata)
        sums_SC = np.stack([np.bincount(items.codes[0], seed_N) / ITEMS_EACH for seed_N in values])
        low, high = np.percentile(((clusters_BC @ sums_SC.T) * seeds_BS).sum(1), [2.5, 97.5])
        by_items = float(special.stdtrit(n_clusters - 1, 0.975)) * float(ours.item_stderr or 0)
        return {
            "ours": covers(ours, change),
            "items only": within(float(ours.value or 0), by_items, change),
            "percentiles": low <= change <= high,
            "TOST": is_small(equivalence_p(ours, abs(change))),
            "value": ours.value,
            "stderr": ours.stderr,
        }

    return repeat({"clusters": n_clusters, "seed SD": ratio, "seeds": n_seeds}, repetitions, once)


@cache
def item_error(n_clusters: int, change: float) -> float:
    """Standard deviation of one run's mean change over other items, from 4,000 runs of the same recipe."""
    random, items = np.random.default_rng(0), grouped(n_clusters)
    runs = (before_and_after(random, items, [CLUSTER_SHARE], change) for _ in range(4_000))
    return float(np.std([float((after_N - before_N).mean()) for before_N, after_N in runs], ddof=1))
