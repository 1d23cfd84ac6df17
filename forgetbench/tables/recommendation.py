"""Choice of the recipe with the best sum of target and source changes, or that the data cannot decide.

A recipe's total is its change on the target set plus its mean change on the source sets: a point learnt counts as much
as a point kept, as in O of summary.csv. All recipes answer the same items, so that their differences are paired.

Legend: N items of the target and all source sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetbench.core.confidence import ALPHA
from forgetbench.core.records import QUADRANTS
from forgetbench.statistics.bounds import Limits, clip_interval, t_interval
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
    """The changes of a recipe on target and sources."""

    name: Name
    target: SeedEstimate
    """Change on the target set."""
    sources: SeedEstimate
    """Mean change over the source sets."""
    total: SeedEstimate
    """Sum of the two."""

    @property
    def has_learnt(self) -> bool:
        """Whether the gain on the target exceeds its error."""
        return self.target.ci_low is not None and self.target.ci_low > 0


@dataclass(frozen=True)
class Rival:
    """A recipe compared with the best."""

    candidate: Candidate
    difference: SeedEstimate
    """The best recipe's total minus this recipe's, on the same items."""
    p_holm: float | None
    """Of no difference, adjusted for all pairs of recipes that have learnt."""

    @property
    def is_distinguishable(self) -> bool:
        """Whether the best recipe is better beyond the error."""
        value = self.difference.value
        return self.p_holm is not None and self.p_holm < ALPHA and value is not None and value > 0


@dataclass(frozen=True)
class Choice:
    """The recipe with the largest total among those that learnt, and all others compared with it."""

    best: Candidate | None
    """None if no recipe has learnt the target beyond its error."""
    rivals: Sequence[Rival]
    """Those that have learnt, the largest total first."""
    candidates: Sequence[Candidate]
    sources: Sequence[str]
    """The source sets that all recipes have."""
    left_out: Sequence[str]
    """Recipes that answered other items, and cannot be compared."""


def choose(recipes: Mapping[Name, Mapping[int | None, Pairs]], decoding: str) -> Choice | None:
    """Compare recipes by their totals; None without a common target and sources that are scored by an accuracy.

    Sources are the sets outside the target's quadrant that every recipe has and no recipe's mix has seen, scored by an
    accuracy; the class-label probe is none.
    """
    by_recipe = {
        name: {seed: _by_dataset(pairs, decoding) for seed, pairs in seeds.items()} for name, seeds in recipes.items()
    }
    seed_cells = [cells for seeds in by_recipe.values() for cells in seeds.values()]
    targets = {cell.context.target for cells in seed_cells for cell, _ in cells.values()}
    if len(targets) != 1:
        return None
    target = target_sets(targets.pop())
    seen_in_mix = {
        name for cells in seed_cells for name, (cell, _) in cells.items() if cell.context.placement.seen_in_mix
    }
    usable = [{name for name, (cell, _) in cells.items() if _is_source(cell)} for cells in seed_cells]
    sources = sorted(set.intersection(*usable) - seen_in_mix)
    if not sources or not all(cells.keys() >= set(target) for cells in seed_cells):
        return None
    if not all(seed_cells[0][name][0].context.metric.is_fraction for name in target):
        return None  # a CIDEr-D has no exchange rate with accuracies
    reference_cells = _most_common_items(seed_cells, [*target, *sources])
    totals, left_out = {}, []
    for name, seeds in by_recipe.items():
        pools = {seed: _ordered(cells, reference_cells, [*target, *sources]) for seed, cells in seeds.items()}
        if any(seed_pool is None for seed_pool in pools.values()):
            left_out.append(" ".join(filter(None, name)))
        else:
            totals[name] = _Total(
                {seed: seed_pool for seed, seed_pool in pools.items() if seed_pool is not None}, target
            )
    candidates = sorted((total.candidate(name) for name, total in totals.items()), key=_rank)
    learnt = [candidate for candidate in candidates if candidate.has_learnt]
    if not learnt:
        return Choice(None, [], candidates, sources, left_out)
    best, others = learnt[0], learnt[1:]
    seed_variance = _pooled_seed_variance(candidates)
    differences = [totals[best.name].difference_from(totals[candidate.name], seed_variance) for candidate in others]
    # The best recipe was chosen by its total, so that every pair counts as tested.
    pairs = len(learnt) * (len(learnt) - 1) // 2
    adjusted = holm([t_test_p(difference) for difference in differences], family=pairs)
    rivals = [Rival(*fields) for fields in zip(others, differences, adjusted, strict=True)]
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
    reference: Mapping[str, tuple[CellView, CellView]],
    names: Sequence[str],
) -> Pool | None:
    """A pool of the named sets, items in the order of `reference`; None if the items differ."""
    pairs = [[matched(view, reference[name][0]) for view in cells[name]] for name in names]
    whole = [(cell, base) for cell, base in pairs if cell is not None and base is not None]
    same_size = all(len(reference[name][0].frame) == len(cells[name][0].frame) for name in names)
    return pool(whole) if len(whole) == len(names) and same_size else None


@dataclass(frozen=True)
class SeedVariance:
    """How totals vary between seeds, pooled over recipes."""

    variance: float
    df: float


def _pooled_seed_variance(candidates: Sequence[Candidate]) -> SeedVariance | None:
    known = [
        (candidate.total.seed_sd, candidate.total.n_seeds - 1)
        for candidate in candidates
        if candidate.total.seed_sd is not None
    ]
    df = sum(seed_df for _, seed_df in known)
    return SeedVariance(sum(sd**2 * seed_df for sd, seed_df in known) / df, float(df)) if df else None


def _most_common_items(
    seed_cells: Sequence[Mapping[str, tuple[CellView, CellView]]], names: Sequence[str]
) -> Mapping[str, tuple[CellView, CellView]]:
    """The cells whose items most runs answered."""
    asked = [tuple(frozenset(cells[name][0].frame["sample_id"]) for name in names) for cells in seed_cells]
    return seed_cells[max(range(len(seed_cells)), key=lambda place: asked.count(asked[place]))]


@dataclass(frozen=True)
class _Total:
    """A recipe's items, for each seed; those of the target first."""

    seeds: Mapping[int | None, Pool]
    target: Sequence[str]
    """The target's sets."""

    def _estimate(self, values: Sequence[Floats], target: float, sources: float, max_value: float = 1) -> SeedEstimate:
        """The weighted sum of the mean values of target and sources; `max_value` is the largest value of an item."""
        seed_pool = next(iter(self.seeds.values()))
        names, sizes = np.unique(seed_pool.strata, return_counts=True)
        size = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        n_targets = len(self.target)
        item_weights = {
            name: (target / n_targets if name in self.target else sources / (len(size) - n_targets)) / n
            for name, n in size.items()
        }
        weights = np.array([item_weights[name] for name in seed_pool.strata])
        is_weighted = weights != 0
        ways = [
            [label for label, is_kept in zip(way, is_weighted, strict=True) if is_kept]
            for way in join_ways(seed_pool.clusters)
        ]
        strata = [name for name, is_kept in zip(seed_pool.strata, is_weighted, strict=True) if is_kept]
        return over_seeds(
            [value[is_weighted] for value in values],
            ways,
            weights[is_weighted],
            strata,
            _symmetric_limits(max_value * (target + sources)),
        )

    def changes(self) -> dict[int | None, Floats]:
        return {
            seed: seed_pool.after_N - seed_pool.before_N
            for seed, seed_pool in self.seeds.items()
            if seed_pool.before_N is not None
        }

    def candidate(self, name: Name) -> Candidate:
        values = list(self.changes().values())
        return Candidate(name, self._estimate(values, 1, 0), self._estimate(values, 0, 1), self._estimate(values, 1, 1))

    def difference_from(self, other: _Total, seed_variance: SeedVariance | None) -> SeedEstimate:
        """The difference of the totals, paired by seed where both have several in common.

        Other seeds vary independently: their error is added to that between items. A recipe with a single seed gets the
        seed variance of the others, if any has several seeds.
        """
        changes, other_changes = self.changes(), other.changes()
        common = [seed for seed in changes if seed in other_changes]
        if len(common) > 1:
            return self._estimate([changes[seed] - other_changes[seed] for seed in common], 1, 1, max_value=2)
        items = self._estimate(
            [np.mean(list(changes.values()), axis=0) - np.mean(list(other_changes.values()), axis=0)], 1, 1, 2
        )
        if seed_variance is None or items.value is None or items.stderr is None or items.df is None:
            return items
        parts = [
            (items.stderr**2, items.df),
            (seed_variance.variance / len(changes) + seed_variance.variance / len(other_changes), seed_variance.df),
        ]
        variance = sum(part for part, _ in parts)
        df = variance**2 / sum(part**2 / df for part, df in parts) if variance else items.df
        stderr = float(np.sqrt(variance))
        low, high = clip_interval(*t_interval(items.value, stderr, df), _symmetric_limits(4))
        return replace(
            items, stderr=stderr, ci_low=low, ci_high=high, df=df, seed_sd=float(np.sqrt(seed_variance.variance))
        )


def _symmetric_limits(max_value: float) -> Limits:
    return -max_value, max_value
