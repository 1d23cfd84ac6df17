"""Input of the tables: a cell's items with their context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from forgetbench.core.errors import UserError
from forgetbench.core.records import PROBE_SUFFIX, Metric, Placement
from forgetbench.statistics.strata import join_ways


@dataclass(frozen=True)
class RowContext:
    """A cell's columns in a table besides its scores."""

    run: str
    model: str
    target: str
    checkpoint: str
    variant: str
    """What was done to the checkpoint after training; empty for nothing."""
    method: str
    parts: str
    lr: float | str
    """A single rate, or a rate per part as text."""
    mix: str
    mix_ratio: float | None
    seed: int | None
    stage: int
    step: int
    dataset: str
    image_domain: str
    text_task: str
    placement: Placement
    probe: bool
    """The class-label probe: it has its own metrics and enters no quadrant."""
    probe_of: str
    """The dataset that this probe repeats with class names among the options; empty for all others."""
    decoding: str
    metric: Metric
    """How `score` was made."""
    labels: frozenset[str]
    """The labels that the target trains; empty if its answers are open-ended."""
    chance: float | None
    """Accuracy of guessing."""
    seconds: float | None
    cell: str
    """Digest of the stored predictions."""
    settings: str
    """How they were made, as JSON."""

    @property
    def is_base(self) -> bool:
        """The untouched model."""
        return self.step == 0 and not self.variant

    @property
    def targets(self) -> list[str]:
        """The datasets that the target is scored on: one, or those that were trained jointly."""
        return target_sets(self.target)

    @property
    def base_key(self) -> tuple[str, str, str]:
        """Key shared by a cell and its base."""
        return self.run, self.dataset, self.decoding

    @property
    def stage_key(self) -> tuple[str, int]:
        """Run and stage; the base is stage 0."""
        return self.run, 0 if self.is_base else self.stage

    def matching_key(self, dataset: str, decoding: str) -> tuple[object, ...]:
        """Identity of a cell of the same checkpoint."""
        return self.run, self.stage, self.step, self.variant, dataset, decoding


def target_sets(target: str) -> list[str]:
    """The datasets of a table's target, which joins several by `+`; without the names of splits."""
    return list(dict.fromkeys(name.partition(":")[0] for name in target.split("+")))


def row_context(
    row: Mapping[Any, Any],
    placement: Placement,
    metric: Metric,
    probe: bool,
    labels: frozenset[str] = frozenset(),
) -> RowContext:
    """The context of a cell's rows.

    Args:
        row: what the tables say of run, checkpoint, dataset and cell, by column; absent values are None or NaN.
        placement: the dataset's, relative to the target.
        metric: how the cell's scores were made.
        probe: the cell's options hold class names.
        labels: what the target trains, for the measures that need it.
    """
    fields: dict[str, Any] = {name: None if pd.isna(row[name]) else row[name] for name in _COLUMNS}
    whole_numbers = {name: int(value) for name in ("seed", "stage", "step") if (value := fields[name]) is not None}
    dataset = str(fields["dataset"])
    return RowContext(
        **fields | whole_numbers,
        placement=placement,
        probe=probe,
        probe_of=dataset.removesuffix(PROBE_SUFFIX) if dataset.endswith(PROBE_SUFFIX) else "",
        metric=metric,
        labels=labels,
    )


_COLUMNS = (
    "run", "model", "target", "checkpoint", "variant", "method", "parts", "lr", "mix", "mix_ratio", "seed", "stage",
    "step", "dataset", "image_domain", "text_task", "decoding", "chance", "seconds", "cell", "settings",
)  # fmt: skip


@dataclass(frozen=True)
class CellView:
    """A cell's items (columns: design of outputs/.cells, plus class_option) and its context."""

    frame: pd.DataFrame
    context: RowContext

    @cached_property
    def ways(self) -> list[list[str]]:
        """Cluster labels of the items, by way."""
        return ways(self.frame, self.context.dataset)


def _global_label(label: str, image_sha256: str, dataset: str) -> str:
    """A label that is equal across datasets only where it means the same: pictures are compared by content."""
    field, _, value = label.partition("=")
    if field == "image":
        return f"image={image_sha256 or f'{dataset}/{value}'}"
    return f"id={dataset}/{value}" if field == "id" else label


def _way_order(label: str) -> tuple[bool, str]:
    """Sort key with pictures first, so that ways join by meaning where datasets list them in different orders."""
    field = str(label).partition("=")[0]
    return field != "image", field


def ways(frame: pd.DataFrame, dataset: str) -> list[list[str]]:
    """Cluster labels by way; an item without labels is a cluster by itself."""
    items = [
        [
            [_global_label(str(label), image, dataset)]
            for label in (sorted(labels, key=_way_order) if len(labels) > 1 else labels)
        ]
        or [[f"item={dataset}/{sample_id}"]]
        for labels, sample_id, image in zip(frame["cluster"], frame["sample_id"], frame["image_sha256"], strict=True)
    ]
    return join_ways(*items) if items else [[]]


def aligned(base: CellView, cell: CellView) -> CellView:
    """The base with its items in the cell's order."""
    ordered = matched(base, cell)
    if ordered is None or len(base.frame) != len(cell.frame):
        cell_ids, base_ids = set(cell.frame["sample_id"]), set(base.frame["sample_id"])
        differing = sorted(map(str, cell_ids ^ base_ids))[:3] or ["repeated ids"]
        raise UserError(
            f"{cell.context.run}: {cell.context.checkpoint} and the base hold different items of "
            f"{cell.context.dataset} ({len(cell.frame)} and {len(base.frame)}; e.g. {', '.join(differing)}). "
            "Forgetting is paired by item: run eval-matrix again with the same data for both."
        )
    return ordered


def matched(other: CellView, cell: CellView) -> CellView | None:
    """Another cell with the cell's items in the cell's order; None if it lacks one of them."""
    if cell.frame["sample_id"].tolist() == other.frame["sample_id"].tolist() and cell.frame["sample_id"].is_unique:
        return other
    cell_ids, other_ids = pd.Index(cell.frame["sample_id"]), pd.Index(other.frame["sample_id"])
    if not (cell_ids.is_unique and other_ids.is_unique and cell_ids.isin(other_ids).all()):
        return None
    return replace(other, frame=other.frame.iloc[other_ids.get_indexer(cell_ids)].reset_index(drop=True))
