"""How a checkpoint sees pictures and how far its weights moved: planned, shared by processes, and kept by content.

outputs/.representation/<digest>.json holds the rows of one checkpoint on one dataset, or those of its weights. The
model is loaded only if one is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from forgetbench.config import MatrixConfig
from forgetbench.core.files import json_text
from forgetbench.core.processes import ProcessGroup
from forgetbench.core.store import Store, json_digest, verify
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.models.checkpoint import Checkpoint

_FORMULAS = 1
"""Raised when a stored figure would come out differently."""


@dataclass(frozen=True)
class LayerMeasure:
    """One layer's hidden states at the picture tokens of one dataset."""

    dataset: str
    layer: int
    """0 is what enters the first decoder layer, k what leaves the k-th."""
    n_images: int
    effective_rank: float | None
    """Mean over pictures."""
    visual_drift_l1: float | None
    """L1 distance from the base's hidden state, mean over a picture's tokens, then over pictures."""
    linear_cka: float | None
    """Similarity to the base over pictures, each the mean of its tokens; None of fewer than four."""


@dataclass(frozen=True)
class PartDistance:
    """How far one part's weights are from the base's."""

    part: str
    weight_distance: float
    """L2 norm of the difference."""
    relative_distance: float | None
    """In units of the base's own norm; None where that is 0."""
    changed_share: float
    """Share of entries that differ in any bit."""


Row = LayerMeasure | PartDistance


class Measurer(Protocol):
    """The model's side: `forgetbench.evaluation.inference.ModelRunner`."""

    def move(self, checkpoint: Checkpoint) -> None:
        """Put the model at a checkpoint."""

    def layers(self, dataset: EvaluationSet, items: Sequence[int]) -> list[LayerMeasure]:
        """Measure hidden states on some items, one per picture."""

    def distances(self) -> list[PartDistance]:
        """Measure the weights."""


@dataclass(frozen=True)
class Job:
    """What is measured and stored in one go."""

    checkpoint: Checkpoint
    dataset: EvaluationSet | None
    """None for the weights."""
    images: int
    digest: str

    @property
    def label(self) -> str:
        """What a progress bar says."""
        return f"{self.checkpoint.name} {self.dataset.manifest.name if self.dataset else 'weights'}"


@dataclass(frozen=True)
class Measured:
    """The rows of one job."""

    checkpoint: Checkpoint
    rows: Sequence[Row]


def plan_representation(
    model_digest: str, checkpoints: Sequence[Checkpoint], sets: Sequence[EvaluationSet], config: MatrixConfig
) -> list[Job]:
    """Every checkpoint on every dataset that shows other pictures, and every checkpoint's weights."""
    shown, settings = pictured_sets(sets, config.representation.datasets), config.representation
    jobs = []
    for checkpoint in checkpoints:
        for dataset in (*shown, None):
            key: dict[str, Any] = {"formulas": _FORMULAS, "model": model_digest, "delta": checkpoint.digest}
            if dataset is not None:
                key |= {"name": dataset.manifest.name, "samples": dataset.digest, "batch_size": config.batch_size}
                key |= {"images": settings.images, "layers": settings.layers, "centred": settings.centred}
            jobs.append(Job(checkpoint, dataset, settings.images, json_digest(key)))
    return jobs


def pictured_sets(sets: Sequence[EvaluationSet], names: Sequence[str] | None) -> list[EvaluationSet]:
    """The named datasets, or the first of each kind of pictures; none without pictures.

    What precedes a picture does not depend on the question, so other questions on the same kind of pictures would
    repeat the same figures.
    """
    shown = [one for one in sets if any(sample.images for sample in one.samples)]
    if names is not None:
        return [one for one in shown if one.manifest.name in names]
    kinds: dict[tuple[frozenset[str], str], EvaluationSet] = {}
    for one in shown:
        kinds.setdefault((frozenset(one.manifest.image_domains), one.manifest.shift), one)
    return list(kinds.values())


def pictured_items(dataset: EvaluationSet, images: int) -> list[int]:
    """The first item of each of so many different pictures, spread evenly over the scored items.

    An item's pictures count as one.
    """
    first: dict[str, int] = {}
    for item, digest in enumerate(dataset.image_digests):
        if digest:
            first.setdefault(digest, item)
    items = list(first.values())
    return items if len(items) <= images else [items[k * len(items) // images] for k in range(images)]


def measure(
    jobs: Sequence[Job],
    load: Callable[[], Measurer],
    folder: Path,
    process_group: ProcessGroup,
    advance: Callable[[str, int], None],
) -> list[Measured]:
    """Every job's rows, stored or fresh; none in processes that only help.

    Missing jobs are dealt out among the processes of one command; the same job gives the same bytes in each.

    Args:
        jobs: the plan.
        load: gives the model; called if something is missing.
        folder: where results are kept.
        process_group: the processes of this command.
        advance: called with a description and the number of jobs that became done.
    """
    store = Store(folder, ".json", damage=(OSError,))
    stored = [_read(store, job) if process_group.is_main else None for job in jobs]
    found = {number: rows for number, rows in enumerate(stored) if rows is not None}
    missing = process_group.broadcast([number for number in range(len(jobs)) if number not in found])
    advance("", len(jobs) - len(missing))
    mine = []
    for turn, number in enumerate(missing):
        advance(jobs[number].label, 0)
        if turn % process_group.size == process_group.rank:
            mine.append((number, _make(jobs[number], load(), store)))
        advance(jobs[number].label, 1)
    found |= dict(process_group.gather(mine))
    return [Measured(job.checkpoint, found[number]) for number, job in enumerate(jobs)] if process_group.is_main else []


def stored_measures(jobs: Sequence[Job], folder: Path) -> list[Measured]:
    """The rows of the jobs that are there."""
    store = Store(folder, ".json", damage=(OSError,))
    found = [(job.checkpoint, _read(store, job)) for job in jobs]
    return [Measured(checkpoint, rows) for checkpoint, rows in found if rows is not None]


def _make(job: Job, measurer: Measurer, store: Store) -> list[Row]:
    measurer.move(job.checkpoint)
    rows: list[Row] = []
    if job.dataset is None:
        rows += measurer.distances()
    else:
        rows += measurer.layers(job.dataset, pictured_items(job.dataset, job.images))
    described = [asdict(row) for row in rows]
    with store.writing(job.digest) as temporary:
        temporary.write_text(json_text({"rows": described, "content": json_digest(described)}), "utf-8")
    return rows


def _read(store: Store, job: Job) -> list[Row] | None:
    """Stored rows; None if they are absent or damaged."""
    kind = PartDistance if job.dataset is None else LayerMeasure

    def load(path: Path) -> list[Row]:
        stored = json.loads(path.read_text("utf-8"))
        verify(stored["content"], json_digest(stored["rows"]))
        return [kind(**row) for row in stored["rows"]]

    return store.read(job.digest, load)
