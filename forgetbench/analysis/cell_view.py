"""What the tables are made from: a cell's items with their context, and one metric's value per item."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from forgetbench.analysis.statistics import ClusteredScores, join_ways
from forgetbench.errors import UserError
from forgetbench.records import LETTERS, Placement

ACCURACY = "accuracy"
MISCHOICE = "mischoice"
"""Share of all items answered with the pictured object's class name."""
MISCHOICE_OF_WRONG = "mischoice_of_wrong"
"""The same as a share of the wrong answers."""
PROBE_METRICS = (ACCURACY, MISCHOICE, MISCHOICE_OF_WRONG)


@dataclass(frozen=True)
class RowContext:
    """What a table says about a cell beside its scores."""

    run: str
    model: str
    target: str
    checkpoint: str
    variant: str
    """What was done to the checkpoint after training; empty for nothing."""
    method: str
    parts: str
    lr: float | str
    """One rate, or one per part as text."""
    mix: str
    mix_ratio: float | None
    seed: int
    stage: int
    step: int
    dataset: str
    image_domain: str
    text_task: str
    placement: Placement
    probe: bool
    """The class-label probe: it has its own metrics and enters no quadrant."""
    decoding: str
    chance: float | None
    """Accuracy of guessing."""
    seconds: float | None
    cell: str
    """Digest of the stored predictions."""

    @property
    def is_base(self) -> bool:
        """The untouched model."""
        return self.step == 0 and not self.variant

    @property
    def base_key(self) -> tuple[str, str, str]:
        """What a cell and its base share."""
        return self.run, self.dataset, self.decoding


@dataclass(frozen=True)
class CellView:
    """A cell's items (columns: design of outputs/.cells, plus class_option) and its context."""

    frame: pd.DataFrame
    context: RowContext


def item_scores(cell: CellView, metric: str) -> ClusteredScores:
    """The items a metric counts and what each scores; an answer no rule could read is wrong."""
    frame = cell.frame
    correct = frame["correct"].fillna(False).astype(bool)
    if metric == ACCURACY:
        hit = correct
    else:
        hit = (frame["parsed"] == _class_answers(frame)).fillna(False)
        if metric == MISCHOICE_OF_WRONG:
            frame, hit = frame[~correct], hit[~correct]
    return ClusteredScores(hit.to_numpy(dtype=np.float64), ways(frame, cell.context.dataset))


def _class_answers(frame: pd.DataFrame) -> pd.Series:
    """The answer that names the class: a letter where the target is one, else the option's text."""
    answers = [
        None if pd.isna(k) else LETTERS[int(k)] if target in set(LETTERS) else options[int(k)]
        for k, target, options in zip(frame["class_option"], frame["target"], frame["options"], strict=True)
    ]
    return pd.Series(answers, index=frame.index, dtype="object")


def _label(label: str, image_sha256: str, dataset: str) -> str:
    """A label that is equal across datasets only where it means the same: pictures are told apart by content."""
    field, _, value = label.partition("=")
    if field == "image":
        return f"image={image_sha256 or f'{dataset}/{value}'}"
    return f"id={dataset}/{value}" if field == "id" else label


def ways(frame: pd.DataFrame, dataset: str) -> list[list[str]]:
    """Cluster labels by way; an item that declares none is its own cluster."""
    items = [
        [[_label(str(label), image, dataset)] for label in labels] or [[f"item={dataset}/{sample_id}"]]
        for labels, sample_id, image in zip(frame["cluster"], frame["sample_id"], frame["image_sha256"], strict=True)
    ]
    return join_ways(*items) if items else [[]]


def aligned(base: CellView, cell: CellView) -> CellView:
    """The base with its items in the cell's order."""
    ours, theirs = pd.Index(cell.frame["sample_id"]), pd.Index(base.frame["sample_id"])
    if not (ours.is_unique and theirs.is_unique and set(ours) == set(theirs)):
        odd = sorted(map(str, set(ours) ^ set(theirs)))[:3] or ["repeated ids"]
        raise UserError(
            f"{cell.context.run}: {cell.context.checkpoint} and the base hold different items of "
            f"{cell.context.dataset} ({len(ours)} and {len(theirs)}; e.g. {', '.join(odd)}). "
            "Forgetting is paired by item: run eval-matrix again with the same data for both."
        )
    return replace(base, frame=base.frame.iloc[theirs.get_indexer(ours)].reset_index(drop=True))
