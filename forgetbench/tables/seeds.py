"""seeds.csv: a row per recipe, variant and quadrant, with separate errors between items and between seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from forgetbench.core.records import QUADRANTS, Metric
from forgetbench.statistics.bounds import CHANGE
from forgetbench.statistics.seeds import over_seeds
from forgetbench.tables.cell_view import CellView, matched
from forgetbench.tables.pool import Pool, pool

_RECIPE = ("recipe", "variant", "method", "parts", "lr", "mix", "mix_ratio")
SEED_COLUMNS = (
    *_RECIPE, "quadrant", "decoding", "metric", "seen_in_mix", "n_seeds", "value", "base_value", "delta",
    "item_stderr", "seed_sd", "stderr", "ci_low", "ci_high",
)  # fmt: skip

Pairs = Sequence[tuple[CellView, CellView]]
"""Cells of the last checkpoint, each with its base."""


def seed_rows(recipes: Mapping[tuple[str, str], Mapping[int | None, Pairs]]) -> pd.DataFrame:
    """Quadrants at the last checkpoint, over the seeds of each recipe.

    Accuracies only, as in matrix.csv; `stderr` and the interval are of the change from the base and hold both errors
    (see `over_seeds`). Items that not every seed was asked make a quadrant of that recipe absent.

    Args:
        recipes: (recipe, variant) -> seed -> cells with their bases.
    """
    rows = []
    for (recipe, variant), seeds in recipes.items():
        contexts = [cell.context for pairs in seeds.values() for cell, _ in pairs]
        kinds = product(QUADRANTS, sorted({context.decoding for context in contexts}), (False, True))
        for quadrant, decoding, seen in kinds:
            pools = _pools_of_same_items([_quadrant_pairs(pairs, quadrant, decoding, seen) for pairs in seeds.values()])
            if pools:
                head = {"recipe": recipe, "variant": variant}
                head |= {name: getattr(contexts[0], name) for name in _RECIPE[2:]}
                kind = {"quadrant": quadrant, "decoding": decoding, "metric": Metric.accuracy, "seen_in_mix": seen}
                rows.append(head | kind | _estimate_columns(pools))
    return pd.DataFrame(rows, columns=list(SEED_COLUMNS))


def _quadrant_pairs(pairs: Pairs, quadrant: str, decoding: str, seen: bool) -> Pairs:
    return [
        (cell, base)
        for cell, base in sorted(pairs, key=lambda pair: pair[0].context.dataset)
        if cell.context.placement.quadrant == quadrant
        and cell.context.placement.seen_in_mix == seen
        and cell.context.decoding == decoding
        and cell.context.metric.is_fraction
        and not cell.context.probe
    ]


def _pools_of_same_items(seeds: Sequence[Pairs]) -> list[Pool]:
    """A pool per seed, items in the same order; none if seeds differ in their items."""
    first = seeds[0]
    if not first or any(len(pairs) != len(first) for pairs in seeds):
        return []
    pools = []
    for pairs in seeds:
        ordered = [
            (cell and matched(cell, reference), base and matched(base, reference))
            for (cell, base), (reference, _) in zip(pairs, first, strict=True)
        ]
        whole = [(cell, base) for cell, base in ordered if cell is not None and base is not None]
        if len(whole) < len(first) or any(
            len(cell.frame) != len(reference.frame) for (cell, _), (reference, _) in zip(pairs, first, strict=True)
        ):
            return []
        pools.append(pool(whole))
    return pools


def _estimate_columns(pools: Sequence[Pool]) -> dict[str, object]:
    first = pools[0]
    changes = [seed_pool.after_N - seed_pool.before_N for seed_pool in pools if seed_pool.before_N is not None]
    estimate = over_seeds(changes, first.clusters, first.all_weights_N, first.strata, CHANGE)
    values = [seed_pool.score.value for seed_pool in pools]
    return {
        "n_seeds": len(pools),
        "value": sum(value for value in values if value is not None) / len(values),
        "base_value": first.score_before.value,
        "delta": estimate.value,
        "item_stderr": estimate.item_stderr,
        "seed_sd": estimate.seed_sd,
        "stderr": estimate.stderr,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
    }
