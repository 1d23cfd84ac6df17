"""Measure hidden states at picture tokens and distances of weights: planned, shared by processes, stored by content.

outputs/.representation/<digest>.json holds the rows of one checkpoint on one dataset, or the distances of its weights.
The model is loaded only if a file is missing.
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
    """0: the input of the first decoder layer; k: the output of the k-th."""
    n_images: int
    effective_rank: float | None
    """Mean over pictures."""
    visual_drift_l1: float | None
    """L1 distance from the base's hidden state, mean over a picture's tokens, then over pictures."""
    linear_cka: float | None
    """Similarity to the base over pictures, each the mean of its tokens; None for fewer than four pictures."""


@dataclass(frozen=True)
class PartDistance:
    """How far one part's weights are from the base's."""

    part: str
    weight_distance: float
    """L2 norm of the difference."""
    relative_distance: float | None
    """Divided by the norm of the base's weights; None if that is 0."""
    changed_share: float
    """Share of entries that differ in any bit."""


Row = LayerMeasure | PartDistance


class Measurer(Protocol):
    """Interface of the model; implemented by `forgetbench.evaluation.inference.ModelRunner`."""

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Put the model at a checkpoint."""

    def layers(self, dataset: EvaluationSet, items: Sequence[int]) -> list[LayerMeasure]:
        """Measure hidden states on some items, one per picture."""

    def distances(self) -> list[PartDistance]:
        """Measure the weights."""


@dataclass(frozen=True)
class Job:
    """One unit of measurement, stored in one file."""

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
class MeasuredRows:
    """The rows of one job."""

    checkpoint: Checkpoint
    rows: Sequence[Row]


def plan_representation(
    model_digest: str, checkpoints: Sequence[Checkpoint], sets: Sequence[EvaluationSet], config: MatrixConfig
) -> list[Job]:
    """Jobs for every checkpoint: one per dataset with a new kind of pictures, and one for the weights."""
    shown, settings = datasets_with_pictures(sets, config.representation.datasets), config.representation
    jobs = []
    for checkpoint in checkpoints:
        for dataset in (*shown, None):
            key: dict[str, Any] = {"formulas": _FORMULAS, "model": model_digest, "delta": checkpoint.digest}
            if dataset is not None:
                key |= {"name": dataset.manifest.name, "samples": dataset.digest, "batch_size": config.batch_size}
                key |= {"images": settings.images, "layers": settings.layers, "centred": settings.centred}
            jobs.append(Job(checkpoint, dataset, settings.images, json_digest(key)))
    return jobs


def datasets_with_pictures(sets: Sequence[EvaluationSet], names: Sequence[str] | None) -> list[EvaluationSet]:
    """The named datasets, or the first of each kind of pictures; datasets without pictures are left out.

    The tokens before a picture do not depend on the question, so other questions on the same kind of pictures would
    repeat the same figures.
    """
    shown = [dataset for dataset in sets if any(sample.images for sample in dataset.samples)]
    if names is not None:
        return [dataset for dataset in shown if dataset.manifest.name in names]
    kinds: dict[tuple[frozenset[str], str], EvaluationSet] = {}
    for dataset in shown:
        kinds.setdefault((frozenset(dataset.manifest.image_domains), dataset.manifest.shift), dataset)
    return list(kinds.values())


def items_with_distinct_pictures(dataset: EvaluationSet, images: int) -> list[int]:
    """The first item of each different picture, at most `images` of them, spread evenly over the scored items.

    The pictures of an item count as one picture.
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
) -> list[MeasuredRows]:
    """The rows of every job, stored or new; empty in all processes but the main one.

    The processes of one command share the missing jobs; a job gives the same bytes in any process.

    Args:
        jobs: the plan.
        load: gives the model; called if something is missing.
        folder: where results are kept.
        process_group: the processes of this command.
        advance: called with a description and the number of jobs that were finished.
    """
    store = Store(folder, ".json", damage=(OSError,))
    stored = [_read(store, job) if process_group.is_main else None for job in jobs]
    done = {number: rows for number, rows in enumerate(stored) if rows is not None}
    missing = process_group.broadcast([number for number in range(len(jobs)) if number not in done])
    advance("", len(jobs) - len(missing))
    measured = []
    for turn, number in enumerate(missing):
        advance(jobs[number].label, 0)
        if turn % process_group.size == process_group.rank:
            measured.append((number, _measure_job(jobs[number], load(), store)))
        advance(jobs[number].label, 1)
    done |= dict(process_group.gather(measured))
    return (
        [MeasuredRows(job.checkpoint, done[number]) for number, job in enumerate(jobs)] if process_group.is_main else []
    )


def stored_measures(jobs: Sequence[Job], folder: Path) -> list[MeasuredRows]:
    """The rows of the jobs that are stored."""
    store = Store(folder, ".json", damage=(OSError,))
    stored = [(job.checkpoint, _read(store, job)) for job in jobs]
    return [MeasuredRows(checkpoint, rows) for checkpoint, rows in stored if rows is not None]


def _measure_job(job: Job, measurer: Measurer, store: Store) -> list[Row]:
    measurer.use_checkpoint(job.checkpoint)
    rows: list[Row] = []
    if job.dataset is None:
        rows += measurer.distances()
    else:
        rows += measurer.layers(job.dataset, items_with_distinct_pictures(job.dataset, job.images))
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
