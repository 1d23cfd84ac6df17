"""Which recipe keeps most for the least target loss, or that the data cannot tell.

A recipe's total is its change on the target set plus its mean change on the source sets: a point learnt counts as much
as a point kept, as in O of summary.csv. All recipes were asked the same items, so that their difference is paired.

Legend: N items of the target and all source sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetbench.core.confidence import ALPHA
from forgetbench.core.records import QUADRANTS
from forgetbench.statistics.bounds import Limits, kept_within, t_interval
from forgetbench.statistics.seeds import SeedEstimate, over_seeds
from forgetbench.statistics.significance import holm, t_test_p
from forgetbench.statistics.strata import Floats, join_ways
from forgetbench.tables.cell_view import CellView, matched, target_sets
from forgetbench.tables.pool import Pool, pool
from forgetbench.tables.seeds import Pairs

Name = tuple[str, str]
"""Recipe and variant."""


@dataclass(frozen=True)
class Candidate:
    """What one recipe learnt and kept."""

    name: Name
    target: SeedEstimate
    """Change on the target set."""
    sources: SeedEstimate
    """Mean change over the source sets."""
    total: SeedEstimate
    """Sum of the two."""

    @property
    def has_learnt(self) -> bool:
        """Its gain on the target is beyond its error."""
        return self.target.ci_low is not None and self.target.ci_low > 0


@dataclass(frozen=True)
class Rival:
    """A recipe beside the best one."""

    candidate: Candidate
    difference: SeedEstimate
    """The best one's total minus this one's, on the same items."""
    p_holm: float | None
    """Of no difference, adjusted for all pairs of recipes that have learnt."""

    @property
    def can_be_told_apart(self) -> bool:
        """The best one is better beyond the error."""
        value = self.difference.value
        return self.p_holm is not None and self.p_holm < ALPHA and value is not None and value > 0


@dataclass(frozen=True)
class Choice:
    """The recipe with the largest total among those that learnt, and every other one beside it."""

    best: Candidate | None
    """None if none has learnt the target beyond its error."""
    rivals: Sequence[Rival]
    """Those that have learnt, the largest total first."""
    candidates: Sequence[Candidate]
    sources: Sequence[str]
    """The source sets that all recipes have."""
    left_out: Sequence[str]
    """Recipes that were asked other items, and cannot be compared."""


def choose(recipes: Mapping[Name, Mapping[int | None, Pairs]], decoding: str) -> Choice | None:
    """Weigh recipes by their totals; None if they have no target and no sources to be weighed by, each as an accuracy.

    Sources are the sets outside the target's quadrant that every recipe has and no recipe's mix has seen, scored by an
    accuracy; the class-label probe is none.
    """
    found = {
        name: {seed: _by_dataset(pairs, decoding) for seed, pairs in seeds.items()} for name, seeds in recipes.items()
    }
    sets = [cells for seeds in found.values() for cells in seeds.values()]
    targets = {cell.context.target for cells in sets for cell, _ in cells.values()}
    if len(targets) != 1:
        return None
    target = target_sets(targets.pop())
    seen = {name for cells in sets for name, (cell, _) in cells.items() if cell.context.placement.seen_in_mix}
    usable = [{name for name, (cell, _) in cells.items() if _is_source(cell)} for cells in sets]
    sources = sorted(set.intersection(*usable) - seen)
    if not sources or not all(cells.keys() >= set(target) for cells in sets):
        return None
    if not all(sets[0][name][0].context.metric.is_fraction for name in target):
        return None  # a CIDEr-D has no exchange rate with accuracies
    lead = _usual(sets, [*target, *sources])
    totals, left_out = {}, []
    for name, seeds in found.items():
        pools = {seed: _ordered(cells, lead, [*target, *sources]) for seed, cells in seeds.items()}
        if any(one is None for one in pools.values()):
            left_out.append(" ".join(filter(None, name)))
        else:
            totals[name] = _Total({seed: one for seed, one in pools.items() if one is not None}, target)
    candidates = sorted((one.candidate(name) for name, one in totals.items()), key=_rank)
    learnt = [one for one in candidates if one.has_learnt]
    if not learnt:
        return Choice(None, [], candidates, sources, left_out)
    best, others = learnt[0], learnt[1:]
    spread = _seed_spread(candidates)
    differences = [totals[best.name].minus(totals[one.name], spread) for one in others]
    # The best one was found by looking, so that every pair counts as tried.
    pairs = len(learnt) * (len(learnt) - 1) // 2
    adjusted = holm([t_test_p(one) for one in differences], family=pairs)
    rivals = [Rival(*one) for one in zip(others, differences, adjusted, strict=True)]
    return Choice(best, rivals, candidates, sources, left_out)


def _rank(candidate: Candidate) -> tuple[float, Name]:
    return -(candidate.total.value or 0.0), candidate.name


def _by_dataset(pairs: Pairs, decoding: str) -> dict[str, tuple[CellView, CellView]]:
    return {cell.context.dataset: (cell, base) for cell, base in pairs if cell.context.decoding == decoding}


def _is_source(cell: CellView) -> bool:
    context = cell.context
    elsewhere = context.placement.quadrant not in ("", QUADRANTS[0]) and not context.placement.seen_in_mix
    return elsewhere and not context.probe and context.metric.is_fraction and len(cell.frame) > 0


def _ordered(
    cells: Mapping[str, tuple[CellView, CellView]],
    lead: Mapping[str, tuple[CellView, CellView]],
    names: Sequence[str],
) -> Pool | None:
    """The named sets, items in the order of `lead`; None if they are other items."""
    pairs = [[matched(view, lead[name][0]) for view in cells[name]] for name in names]
    whole = [(cell, base) for cell, base in pairs if cell is not None and base is not None]
    same = all(len(lead[name][0].frame) == len(cells[name][0].frame) for name in names)
    return pool(whole) if len(whole) == len(names) and same else None


@dataclass(frozen=True)
class Spread:
    """How totals vary between seeds, pooled over recipes."""

    variance: float
    df: float


def _seed_spread(candidates: Sequence[Candidate]) -> Spread | None:
    known = [(one.total.seed_sd, one.total.n_seeds - 1) for one in candidates if one.total.seed_sd is not None]
    df = sum(own for _, own in known)
    return Spread(sum(sd**2 * own for sd, own in known) / df, float(df)) if df else None


def _usual(
    sets: Sequence[Mapping[str, tuple[CellView, CellView]]], names: Sequence[str]
) -> Mapping[str, tuple[CellView, CellView]]:
    """The cells whose items most runs were asked."""
    asked = [tuple(frozenset(cells[name][0].frame["sample_id"]) for name in names) for cells in sets]
    return sets[max(range(len(sets)), key=lambda place: asked.count(asked[place]))]


@dataclass(frozen=True)
class _Total:
    """A recipe's items, for each seed; those of the target first."""

    seeds: Mapping[int | None, Pool]
    target: Sequence[str]
    """The target's sets."""

    def _estimate(self, values: Sequence[Floats], target: float, sources: float, most: float = 1) -> SeedEstimate:
        """The sum of the mean values of the target and of the sources, each so weighed; `most` is an item's largest."""
        one = next(iter(self.seeds.values()))
        names, sizes = np.unique(one.strata, return_counts=True)
        size = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        n_targets = len(self.target)
        each = {
            name: (target / n_targets if name in self.target else sources / (len(size) - n_targets)) / n
            for name, n in size.items()
        }
        weights = np.array([each[name] for name in one.strata])
        kept = weights != 0
        ways = [[label for label, keep in zip(way, kept, strict=True) if keep] for way in join_ways(one.clusters)]
        strata = [name for name, keep in zip(one.strata, kept, strict=True) if keep]
        return over_seeds(
            [value[kept] for value in values], ways, weights[kept], strata, _either_way(most * (target + sources))
        )

    def changes(self) -> dict[int | None, Floats]:
        return {seed: one.after_N - one.before_N for seed, one in self.seeds.items() if one.before_N is not None}

    def candidate(self, name: Name) -> Candidate:
        values = list(self.changes().values())
        return Candidate(name, self._estimate(values, 1, 0), self._estimate(values, 0, 1), self._estimate(values, 1, 1))

    def minus(self, other: _Total, spread: Spread | None) -> SeedEstimate:
        """The difference of the totals, paired by seed where both have several in common.

        Other seeds vary independently: their error is added to that between items. A recipe with a single seed is taken
        to vary as the others do, if any has several.
        """
        ours, theirs = self.changes(), other.changes()
        common = [seed for seed in ours if seed in theirs]
        if len(common) > 1:
            return self._estimate([ours[seed] - theirs[seed] for seed in common], 1, 1, most=2)
        items = self._estimate([np.mean(list(ours.values()), axis=0) - np.mean(list(theirs.values()), axis=0)], 1, 1, 2)
        if spread is None or items.value is None or items.stderr is None or items.df is None:
            return items
        parts = [(items.stderr**2, items.df), (spread.variance / len(ours) + spread.variance / len(theirs), spread.df)]
        variance = sum(part for part, _ in parts)
        df = variance**2 / sum(part**2 / df for part, df in parts) if variance else items.df
        stderr = float(np.sqrt(variance))
        low, high = kept_within(*t_interval(items.value, stderr, df), _either_way(4))
        return replace(items, stderr=stderr, ci_low=low, ci_high=high, df=df, seed_sd=float(np.sqrt(spread.variance)))


def _either_way(most: float) -> Limits:
    return -most, most
