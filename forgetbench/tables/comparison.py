"""Two checkpoints of the same items, cell by cell, by quadrant, and their interaction; over seeds where there are any.

Legend: S seeds, N items.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from forgetbench.core.confidence import ALPHA
from forgetbench.core.errors import UserError
from forgetbench.core.records import Metric
from forgetbench.statistics.bounds import limits_of_difference
from forgetbench.statistics.seeds import SeedEstimate, over_seeds
from forgetbench.statistics.significance import equivalence_p, holm, t_test_p
from forgetbench.statistics.strata import Floats, join_ways
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.pool import Pool, pool
from forgetbench.tables.verdict import verdict

COLUMNS = (
    "level", "name", "quadrant", "decoding", "metric", "seen_in_mix", "n", "n_seeds", "first", "second", "difference",
    "item_stderr", "seed_sd", "stderr", "ci_low", "ci_high", "forgotten", "gained", "p_value", "p_holm", "margin",
    "p_equivalence", "verdict",
)  # fmt: skip
_DECIDING = ("difference", "ci_low", "ci_high", "p_holm", "p_equivalence")
"""Arguments of the verdict."""
_IMAGES = {"id_image": "ID images", "ood_image": "OOD images"}

Key = tuple[str, str]
"""Dataset and decoding."""


@dataclass(frozen=True)
class Side:
    """A checkpoint of a recipe, with each of its seeds."""

    label: str
    seeds: Mapping[int | None, Sequence[CellView]]


def compare(first: Side, second: Side, margin: float) -> pd.DataFrame:
    """What changes from the first to the second, by COLUMNS; a row per dataset, quadrant and interaction.

    Items are paired by id; those that only one side has are left out. A quadrant is the mean of its datasets, those
    that either side's mix has seen apart; a dataset that the two sides place differently is in none. An interaction is
    the drop on OOD text minus the drop on ID text, in points of accuracy, for the quadrants of one kind of pictures,
    and once more for the pictures that both have. With several seeds intervals hold both errors.
    `p_value` is of a sign-flip test over clusters, or of the t test for interactions and several seeds; `p_holm`
    adjusts for the rows of the same level; `p_equivalence` is TOST's, for the margin (a fraction of 1).

    Raises:
        UserError: nothing is common to both.
    """
    seeds = _common_seeds(first, second)
    pairs = _pairs(first, second, seeds)
    if not pairs:
        raise UserError(f"{first.label} and {second.label} have no dataset and decoding in common.")
    rows = [_row("dataset", key[0], paired, margin) for key, paired in pairs.items()]
    groups = _quadrants(pairs)
    rows += [_row("quadrant", quadrant, paired, margin) for (quadrant, *_), paired in groups.items()]
    rows += _interactions(groups, margin)
    for level in {row["level"] for row in rows}:
        family = [row for row in rows if row["level"] == level]
        for row, adjusted in zip(family, holm([row["p_value"] for row in family]), strict=True):  # type: ignore[misc]
            row["p_holm"] = adjusted
            row["verdict"] = verdict_with_margin(*(row[name] for name in _DECIDING))  # type: ignore[arg-type]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def left_out(first: Side, second: Side) -> list[str]:
    """What `compare` leaves out, in sentences: seeds, datasets and items of one side; sets placed differently."""
    seeds = _common_seeds(first, second)
    first_cells, second_cells = (
        [side.seeds[pair[place]] for pair in seeds] for place, side in enumerate((first, second))
    )
    items_by_side = [_items(cells) for cells in (first_cells, second_cells)]
    lines = []
    for side, place in ((first, 0), (second, 1)):
        used = {pair[place] for pair in seeds}
        if unused := [seed for seed in side.seeds if seed not in used]:
            lines.append(f"Only {side.label}: seeds {_listed(unused)}.")
        if unshared := sorted(items_by_side[place].keys() - items_by_side[1 - place].keys()):
            lines.append(f"Only {side.label}: {_by_dataset(unshared)}.")
    partly_shared: dict[str, list[Key]] = defaultdict(list)
    for key in sorted(items_by_side[0].keys() & items_by_side[1].keys()):
        first_items, second_items = items_by_side[0][key], items_by_side[1][key]
        if first_items != second_items:
            partly_shared[
                f"{len(first_items & second_items)} items, of {len(first_items)} and {len(second_items)}"
            ].append(key)
    lines += [
        f"On the items that both were asked, {counts}: {_by_dataset(keys)}." for counts, keys in partly_shared.items()
    ]
    places = [
        {key: cell.context.placement.quadrant for key, cell in _by_key(side[0]).items()}
        for side in (first_cells, second_cells)
    ]
    differently_placed = sorted(key for key in places[0].keys() & places[1].keys() if places[0][key] != places[1][key])
    if differently_placed:
        lines.append(
            "In no quadrant here, as the two sides' targets place them in different ones: "
            f"{_by_dataset(differently_placed)}."
        )
    return lines


def _items(seeds: Sequence[Sequence[CellView]]) -> dict[Key, set[str]]:
    """The items that every seed of a side was asked."""
    indexed = [_by_key(cells) for cells in seeds]
    return {
        key: set.intersection(*(set(cells[key].frame["sample_id"]) for cells in indexed))
        for key in set.intersection(*(set(cells) for cells in indexed))
    }


def _by_dataset(keys: Iterable[Key]) -> str:
    decodings: dict[str, list[str]] = defaultdict(list)
    for dataset, decoding in keys:
        decodings[dataset].append(decoding)
    return ", ".join(f"{dataset} ({', '.join(names)})" for dataset, names in decodings.items())


@dataclass(frozen=True)
class _Paired:
    """Cells of one or more datasets, the first and the second side's, for every seed."""

    seeds: Sequence[Sequence[tuple[CellView, CellView]]]
    """S lists of (second, first), items in the same order in all."""

    def pools(self) -> list[Pool]:
        return [pool(pairs) for pairs in self.seeds]

    def with_images(self, images: set[str]) -> _Paired:
        """The items with these pictures; datasets without any of them are left out."""
        filtered = [
            [(_select_images(second, images), _select_images(first, images)) for second, first in pairs]
            for pairs in self.seeds
        ]
        return _Paired([[pair for pair in pairs if len(pair[0].frame)] for pairs in filtered])

    @property
    def images(self) -> set[str]:
        return {image for second, _ in self.seeds[0] for image in second.frame["image_sha256"] if image}

    @property
    def cell(self) -> CellView:
        return self.seeds[0][0][0]

    @property
    def is_seen(self) -> bool:
        return any(view.context.placement.seen_in_mix for view in self.seeds[0][0])


def _select_images(view: CellView, images: set[str]) -> CellView:
    return replace(view, frame=view.frame[view.frame["image_sha256"].isin(images)].reset_index(drop=True))


def _common_seeds(first: Side, second: Side) -> list[tuple[int | None, int | None]]:
    if len(first.seeds) == 1 and len(second.seeds) == 1:
        return [(next(iter(first.seeds)), next(iter(second.seeds)))]
    common = [seed for seed in first.seeds if seed in second.seeds]
    if not common:
        raise UserError(
            f"{first.label} (seeds {_listed(first.seeds)}) and {second.label} (seeds {_listed(second.seeds)}) have no "
            "seed in common; several seeds are paired by seed."
        )
    return [(seed, seed) for seed in common]


def _listed(seeds: Iterable[int | None]) -> str:
    return ", ".join(map(str, seeds))


def _pairs(first: Side, second: Side, seeds: Sequence[tuple[int | None, int | None]]) -> dict[Key, _Paired]:
    """For every dataset and decoding that all sides have: the cells of common items, in the same order."""
    indexed = [
        (_by_key(second.seeds[second_seed]), _by_key(first.seeds[first_seed])) for first_seed, second_seed in seeds
    ]
    common = set.intersection(*(set(cells) for pair in indexed for cells in pair))
    paired = {}
    for key in sorted(common):
        cells = [cell[key] for pair in indexed for cell in pair]
        ids = set.intersection(*(set(cell.frame["sample_id"]) for cell in cells))
        if ids:
            cells = [_ordered(cell, ids) for cell in cells]
            if any(list(cell.frame["target"]) != list(cells[0].frame["target"]) for cell in cells):
                raise UserError(f"{key[0]}: the two sides call different items by the same ids; score both again.")
            paired[key] = _Paired([[(cells[i], cells[i + 1])] for i in range(0, len(cells), 2)])
    return paired


def _by_key(cells: Iterable[CellView]) -> dict[Key, CellView]:
    return {(cell.context.dataset, cell.context.decoding): cell for cell in cells}


def _ordered(cell: CellView, ids: set[str]) -> CellView:
    frame = cell.frame[cell.frame["sample_id"].isin(ids)].sort_values("sample_id", ignore_index=True)
    return replace(cell, frame=frame)


def _quadrants(pairs: Mapping[Key, _Paired]) -> dict[tuple[str, str, bool], _Paired]:
    """Datasets by quadrant, decoding and whether a mix has seen them; accuracies only."""
    groups: dict[tuple[str, str, bool], list[_Paired]] = defaultdict(list)
    for (_, decoding), paired in pairs.items():
        second, first = (view.context for view in paired.seeds[0][0])
        quadrant = second.placement.quadrant
        if quadrant and quadrant == first.placement.quadrant and not second.probe and second.metric.is_fraction:
            groups[quadrant, decoding, paired.is_seen].append(paired)
    return {
        key: _Paired([[pair for member in group for pair in member.seeds[seed]] for seed in range(len(group[0].seeds))])
        for key, group in sorted(groups.items())
    }


def _row(level: str, name: str, paired: _Paired, margin: float) -> dict[str, object]:
    context, pools = paired.cell.context, paired.pools()
    changes = [seed_pool.after_N - _before_scores(seed_pool) for seed_pool in pools]
    limits = limits_of_difference(pools[0].limits, pools[0].limits)
    estimate = over_seeds(changes, pools[0].clusters, pools[0].all_weights_N, pools[0].strata, limits)
    flows = [seed_pool.change for seed_pool in pools]
    seconds, firsts = (
        [seed_pool.score.value for seed_pool in pools],
        [seed_pool.score_before.value for seed_pool in pools],
    )
    p_value = pools[0].change_p_value if len(pools) == 1 else t_test_p(estimate)
    return {
        "level": level,
        "name": name,
        "quadrant": context.placement.quadrant,
        "decoding": context.decoding,
        "metric": context.metric.value if level == "dataset" else Metric.accuracy.value,
        "seen_in_mix": paired.is_seen,
        "n": pools[0].after_N.size,
        "first": _mean(firsts),
        "second": _mean(seconds),
        "forgotten": _mean([flow.forgotten for flow in flows]),
        "gained": _mean([flow.gained for flow in flows]),
        "p_value": p_value,
        **_estimate_columns(estimate, margin if context.metric.is_fraction else None),
    }


def _interactions(groups: Mapping[tuple[str, str, bool], _Paired], margin: float) -> list[dict[str, object]]:
    rows = []
    for (quadrant, decoding, is_seen), ood_text in groups.items():
        text, _, image = quadrant.partition("-")
        id_text = groups.get((f"id_text-{image}", decoding, False))
        if text != "ood_text" or is_seen or id_text is None:
            continue
        rows.append(_interaction(_IMAGES[image], decoding, ood_text, id_text, margin))
        if shared := ood_text.images & id_text.images:
            name = f"{_IMAGES[image]}, the same pictures"
            rows.append(_interaction(name, decoding, ood_text.with_images(shared), id_text.with_images(shared), margin))
    return rows


def _interaction(name: str, decoding: str, ood_text: _Paired, id_text: _Paired, margin: float) -> dict[str, object]:
    """Drop on OOD text minus drop on ID text."""
    sides = list(zip(ood_text.pools(), id_text.pools(), strict=True))
    drops = [np.concatenate([_before_scores(seed_pool) - seed_pool.after_N for seed_pool in side]) for side in sides]
    ood_pool, id_pool = sides[0]
    weights = np.concatenate([ood_pool.all_weights_N, -id_pool.all_weights_N])
    strata = [*(f"ood/{dataset}" for dataset in ood_pool.strata), *(f"id/{dataset}" for dataset in id_pool.strata)]
    estimate = over_seeds(drops, join_ways(ood_pool.clusters, id_pool.clusters), weights, strata, (-2.0, 2.0))
    return {
        "level": "interaction",
        "name": name,
        "decoding": decoding,
        "metric": Metric.accuracy.value,
        "n": len(strata),
        "p_value": t_test_p(estimate),
        **_estimate_columns(estimate, margin),
    }


def _estimate_columns(estimate: SeedEstimate, margin: float | None) -> dict[str, object]:
    p_equivalence = None if margin is None else equivalence_p(estimate, margin)
    return {
        "n_seeds": estimate.n_seeds,
        "difference": estimate.value,
        "item_stderr": estimate.item_stderr,
        "seed_sd": estimate.seed_sd,
        "stderr": estimate.stderr,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "margin": margin,
        "p_equivalence": p_equivalence,
    }


def verdict_with_margin(
    change: float | None,
    ci_low: float | None,
    ci_high: float | None,
    p_holm: float | None,
    p_equivalence: float | None,
) -> str:
    """What the tests of a change and of equivalence say, in words; empty where there is no interval."""
    word, same = verdict(change, ci_low, ci_high, p_holm), p_equivalence is not None and p_equivalence < ALPHA
    if word == "unclear":
        return "equivalent" if same else word
    return word + ", within the margin" * (same and bool(word))


def _before_scores(seed_pool: Pool) -> Floats:
    assert seed_pool.before_N is not None
    return seed_pool.before_N


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def engine_lines(first: Side, second: Side) -> list[str]:
    """How similar the answers of two engines are: a line per dataset and decoding, over all seeds."""
    answers: dict[tuple[str, str], list[tuple[bool, float | None]]] = defaultdict(list)
    for seed, cells in first.seeds.items():
        others = {(cell.context.dataset, cell.context.decoding): cell.frame for cell in second.seeds.get(seed, ())}
        for cell in cells:
            key = cell.context.dataset, cell.context.decoding
            if key in others:
                first_frame = cell.frame.set_index("sample_id")
                answers[key] += _compare_answers(first_frame, others[key].set_index("sample_id").loc[first_frame.index])
    lines = []
    for (dataset, decoding), compared in answers.items():
        gaps = [gap for _, gap in compared if gap is not None]
        apart = f", log-probabilities at most {max(gaps):.2g} apart" if gaps else ""
        n_same = sum(is_same for is_same, _ in compared)
        lines.append(f"{dataset}, {decoding}: {n_same} of {len(compared)} answers are the same{apart}")
    return lines


def _compare_answers(first: pd.DataFrame, second: pd.DataFrame) -> list[tuple[bool, float | None]]:
    """Whether each item was answered the same, and the largest difference of its log-probabilities."""
    same = first["parsed"].fillna("") == second["parsed"].fillna("")
    pairs = zip(first["option_logprobs"], second["option_logprobs"], strict=True)
    gaps = [None if a is None else float(np.max(np.abs(np.subtract(a, b)))) for a, b in pairs]
    return list(zip(same, gaps, strict=True))
