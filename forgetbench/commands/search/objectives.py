"""The two numbers that a search goes by: accuracy on the target, and what the off-target quadrants lost.

While searching they are of validation items: of sets named for it, or of items that the test's limit leaves out. The
test items are scored once, at the end, of the points on the front. Both times the same sets count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from forgetbench.config import MatrixConfig, Retention, SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import QUADRANTS
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.quadrant import place
from forgetbench.statistics.intervals import Estimate, paired_difference
from forgetbench.statistics.strata import join_ways
from forgetbench.tables.cell_view import CellView, aligned, target_sets
from forgetbench.tables.pool import Pool, pool
from forgetbench.terminal.console import note

_FEWEST = 50
"""Validation items below which a set says too little; of fewer that were asked for, all."""


@dataclass(frozen=True)
class Value:
    """A number with its confidence interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Objectives:
    """The objectives of one checkpoint, as measured."""

    target: Value
    """Accuracy on the target."""
    target_base: float
    retention: Value
    """Change from the base, over the off-target quadrants."""
    quadrants: Mapping[str, Value]
    """Change of each."""

    @property
    def pair(self) -> tuple[float, float]:
        """Both, higher is better."""
        return self.target.value, self.retention.value

    @property
    def content(self) -> dict[str, Any]:
        """As nested settings, for a file."""
        return asdict(self)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Objectives:
        """Objectives from their `content`."""
        quadrants = {name: Value(**numbers) for name, numbers in content["quadrants"].items()}
        target, retention = Value(**content["target"]), Value(**content["retention"])
        return cls(target, content["target_base"], retention, quadrants)


@dataclass(frozen=True)
class ObjectiveSets:
    """The scored sets, each with the set that replaces it while searching."""

    targets: Mapping[str, str]
    others: Mapping[str, str]
    skip: Mapping[str, int]
    """For sets that no other set replaces: the test's limit, whose items validation leaves out."""
    retention: Retention

    def validation(self, config: SweepConfig, step: int) -> MatrixConfig:
        """What is scored of a checkpoint while searching."""
        names = list(dict.fromkeys([*self.targets.values(), *self.others.values()]))
        limit = config.search.items
        return self._without_probes(
            replace(config.matrix, datasets=names, limit=limit, skip=dict(self.skip), steps=[step])
        )

    def test(self, config: SweepConfig, step: int) -> MatrixConfig:
        """What is scored of a point of the front."""
        stand_ins = {*self.targets.values(), *self.others.values()} - {*self.targets, *self.others}
        names = [name for name in config.matrix.datasets if name not in stand_ins]
        return replace(config.matrix, datasets=names, steps=[step])

    def measure(self, views: Sequence[CellView], config: MatrixConfig, step: int, tested: bool) -> Objectives:
        """The objectives of a checkpoint.

        Args:
            views: of its cells and its base's.
            config: what was scored.
            step: the checkpoint's.
            tested: whether on the test's items.
        """
        pairs = paired(views, config, step)
        chosen = [
            {name if tested else stand_in for name, stand_in in sets.items()} for sets in (self.targets, self.others)
        ]
        target = pool([pairs[name] for name in sorted(chosen[0])])
        by_quadrant = {
            quadrant: pool([pairs[name] for name in sorted(chosen[1]) if _quadrant(pairs[name]) == quadrant])
            for quadrant in QUADRANTS[1:]
            if any(_quadrant(pairs[name]) == quadrant for name in chosen[1])
        }
        changes = {quadrant: _value(quadrant_pool.change.difference) for quadrant, quadrant_pool in by_quadrant.items()}
        if self.retention is Retention.worst:
            retention = min(changes.values(), key=lambda change: change.value)
        else:
            retention = _value(_mean_change(list(by_quadrant.values())))
        base = target.score_before.value
        assert base is not None
        return Objectives(_value(target.score), base, retention, changes)

    @staticmethod
    def _without_probes(matrix: MatrixConfig) -> MatrixConfig:
        return replace(matrix, class_probe=[], representation=replace(matrix.representation, enabled=False))


def choose_sets(config: SweepConfig, points: Iterable[SweepConfig], catalogue: Catalogue, count: Any) -> ObjectiveSets:
    """Choose the scored sets and the validation set of each; say which sets are left out.

    Args:
        config: what all points share.
        points: configs with every choice of the space: a set that any of them may train on is left out.
        catalogue: where manifests are.
        count: counts the items of a manifest that a limit leaves out.

    Raises:
        UserError: an objective has no set.
    """
    target = config.data.targets[0]
    mixed = {name for point in points for name in _auxiliary_sets(point)}
    trained = [leaf.manifest for name in sorted(mixed) for leaf in catalogue.leaves(name)]
    validation, by_name, skip = config.search.validation, dict[str, str](), dict[str, int]()
    scored_targets = [name for name in target_sets(target) if name in config.matrix.datasets]
    quadrants = set[str]()
    for name in config.matrix.datasets:
        manifest = catalogue.load(name)
        placement = place(catalogue.load(target), manifest, trained, catalogue.joined(target))
        is_off_target = placement.quadrant in QUADRANTS[1:] and not manifest.probe and name not in validation.values()
        if not (is_off_target or name in scored_targets):
            continue
        if is_off_target and placement.seen_in_mix:
            note(f"search: {name} does not count, as points may train on its task.")
            continue
        if name not in validation and (shortage := _shortage(config, manifest, count)):
            if name in scored_targets:
                raise UserError(f"search.validation: {shortage}; name another set for it, or lower matrix.limit.")
            note(f"search: {name} does not count: {shortage}.")
            continue
        by_name[name] = validation.get(name, name)
        if name not in validation and config.matrix.limit is not None:
            skip[name] = config.matrix.limit
        quadrants |= {placement.quadrant} if is_off_target else set()
    if not quadrants:
        raise UserError("matrix.datasets: no off-target set has validation items, so that nothing could be forgotten.")
    others = {name: stand_in for name, stand_in in by_name.items() if name not in scored_targets}
    return ObjectiveSets({name: by_name[name] for name in scored_targets}, others, skip, config.search.retention)


def _auxiliary_sets(point: SweepConfig) -> list[str]:
    """Sets that a point trains on beside its target."""
    recipe = point.recipe
    mixed = list(recipe.mix.weights) if recipe.mix.ratio else []
    return mixed + (list(recipe.replay.earlier) if recipe.replay.samples else [])


def _shortage(config: SweepConfig, manifest: Any, count: Any) -> str:
    """Why a set has too few items beside the test's; empty if it has enough."""
    fewest = min(_FEWEST, config.search.items)
    n_left = count(manifest, config.matrix.limit, fewest)
    return f"matrix.limit={config.matrix.limit} leaves {n_left} of its items" if n_left < fewest else ""


def paired(views: Sequence[CellView], config: MatrixConfig, step: int) -> dict[str, tuple[CellView, CellView]]:
    """Set -> a checkpoint's cell and its base's, in the first decoding that the set has."""
    order = {str(decoding): place for place, decoding in enumerate(config.decodings)}
    pairs: dict[str, tuple[CellView, CellView]] = {}
    views = sorted(views, key=lambda view: order[view.context.decoding])
    bases = {view.context.base_key: view for view in views if view.context.is_base}
    for view in views:
        if view.context.step == step and not view.context.variant and view.context.dataset not in pairs:
            pairs[view.context.dataset] = (view, aligned(bases[view.context.base_key], view))
    return pairs


def _quadrant(pair: tuple[CellView, CellView]) -> str:
    return pair[0].context.placement.quadrant


def _value(estimate: Estimate) -> Value:
    assert estimate.value is not None
    return Value(estimate.value, estimate.ci_low, estimate.ci_high)


def _mean_change(pools: Sequence[Pool]) -> Estimate:
    """The change of several quadrants, each with equal weight."""
    after, before = (
        [quadrant_pool.after_N for quadrant_pool in pools],
        [quadrant_pool.before_N for quadrant_pool in pools if quadrant_pool.before_N is not None],
    )
    return paired_difference(
        np.concatenate(after),
        np.concatenate(before),
        join_ways(*(quadrant_pool.clusters for quadrant_pool in pools)),
        np.concatenate([quadrant_pool.all_weights_N for quadrant_pool in pools]) / len(pools),
        [name for quadrant_pool in pools for name in quadrant_pool.strata],
        pools[0].limits,
    ).difference
