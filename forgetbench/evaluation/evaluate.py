"""Score every checkpoint on every dataset in one command, keeping each finished batch and cell.

A model is loaded only if a cell is missing. Several processes of one command share a cell batch by batch; several
commands on one outputs folder share the work cell by cell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetbench.config import MatrixConfig
from forgetbench.core.processes import ProcessGroup
from forgetbench.core.records import Prediction
from forgetbench.core.store import json_digest
from forgetbench.evaluation.cells import Cell, CellKey, CellStore
from forgetbench.evaluation.journal import Entry, Journal
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from forgetbench.evaluation.inference import ModelRunner

_LOCK_WAIT_S = 20.0

Advance = Callable[[str, int], None]
"""Called with a description and the number of items that became done."""


@dataclass(frozen=True)
class Work:
    """One cell to fetch or make."""

    checkpoint: Checkpoint
    dataset: EvaluationSet
    settings: Settings
    digest: str

    @property
    def label(self) -> str:
        """What a progress bar says."""
        return f"{self.checkpoint.name} {self.dataset.manifest.name} {self.settings.decoding}"


@dataclass(frozen=True)
class ScoredCell:
    """A finished cell and what it is of."""

    work: Work
    cell: Cell


def plan(
    model_digest: str, checkpoints: Sequence[Checkpoint], datasets: Sequence[EvaluationSet], config: MatrixConfig
) -> list[Work]:
    """Every checkpoint on every dataset in every decoding that applies."""
    return [
        Work(checkpoint, dataset, settings, CellKey(model_digest, checkpoint.digest, dataset.digest, settings).digest)
        for checkpoint in checkpoints
        for dataset in datasets
        for settings in dataset.settings(config)
    ]


def stored_cells(planned: Sequence[Work], store: CellStore) -> list[ScoredCell]:
    """The cells that are there, scored by the present rules."""
    found = [(work, store.read(work.digest, work.dataset.manifest.metric)) for work in planned]
    return [ScoredCell(work, cell) for work, cell in found if cell is not None]


class Evaluator:
    """Finds finished cells and makes the missing ones."""

    def __init__(self, load: Callable[[], ModelRunner], store: CellStore, process_group: ProcessGroup) -> None:
        """Prepare.

        Args:
            load: loads the model; called once, if a cell is missing.
            store: where cells are.
            process_group: the processes of this command.
        """
        self._load, self._store, self._process_group = load, store, process_group
        self._runner: ModelRunner | None = None

    def score(self, planned: Sequence[Work], advance: Advance) -> list[ScoredCell]:
        """Every cell of the plan in order, stored or fresh; none in processes that only help.

        A cell that another command is making is left for later, then waited for.
        """
        cells: dict[str, Cell | None] = {}
        busy = [work for work in planned if not self._try_score(work, cells, advance, wait_s=0)]
        while busy:  # in short turns: the other processes of this command must not wait in silence for long
            busy = [work for work in busy if not self._try_score(work, cells, advance, wait_s=_LOCK_WAIT_S)]
        return [ScoredCell(work, cell) for work in planned if (cell := cells[work.digest]) is not None]

    def _try_score(self, work: Work, cells: dict[str, Cell | None], advance: Advance, wait_s: float) -> bool:
        """Fetch or make one cell; False if another command is making it."""
        with ExitStack() as held:
            cell = self._stored(work)
            state = "stored" if cell else "free" if self._lock(work, held, wait_s) else "busy"
            state = self._process_group.broadcast(state)
            if state == "free":
                # While this process waited for the lock, another may have made the cell.
                cell = self._stored(work)
                state = self._process_group.broadcast("stored" if cell else "free")
            if state == "free":
                cell = self._make(work, advance)
            elif state == "stored":
                advance(work.label, len(work.dataset.samples))
            if state != "busy":
                cells[work.digest] = cell
        return state != "busy"

    def _stored(self, work: Work) -> Cell | None:
        """A stored cell, for the main process."""
        cell = self._store.read(work.digest, work.dataset.manifest.metric) if self._process_group.is_main else None
        if cell is not None:
            self._store.remove_leftovers(work.digest)
        return cell

    def _lock(self, work: Work, held: ExitStack, wait_s: float) -> bool:
        """Hold a cell's lock to the end of `held`; False if another command does."""
        return self._process_group.is_main and held.enter_context(self._store.locked(work.digest, wait_s))

    def _make(self, work: Work, advance: Advance) -> Cell | None:
        """Ask the model what is not in the journal; the main process keeps the answers of all."""
        if self._runner is None:
            advance("loading the model", 0)
            self._runner = self._load()
        runner, dataset = self._runner, work.dataset
        runner.move(work.checkpoint)
        advance(f"preparing {dataset.manifest.name}", 0)
        batches, settings = runner.batches(dataset).batches, runner.resolved(dataset, work.settings)
        beyond = runner.beyond_context(dataset, settings)
        items = [json_digest([dataset.samples[item].id for item in batch])[:16] for batch in batches]
        journal = Journal(self._store.partial(work.digest), self._process_group.rank)
        kept = journal.read() if self._process_group.is_main else {}
        done = {number: kept[number] for number in range(len(batches)) if number in kept}
        done = self._process_group.broadcast(
            {number: one for number, one in done.items() if one.items == items[number]}
        )
        advance(work.label, sum(len(batches[number]) for number in done))
        mine: list[tuple[int, Entry]] = []
        for turn, number in enumerate(number for number in range(len(batches)) if number not in done):
            if turn % self._process_group.size == self._process_group.rank:
                started = time.perf_counter()
                predictions = runner.answer(dataset, number, settings)
                mine.append((number, Entry(items[number], time.perf_counter() - started, predictions)))
                journal.add(*mine[-1])
            advance(work.label, len(batches[number]))
        done |= dict(self._process_group.gather(mine))
        if not self._process_group.is_main:
            return None
        by_item: dict[int, Prediction] = {}
        for number, batch in enumerate(batches):
            by_item |= dict(zip(batch, done[number].predictions, strict=True))
        predictions = [by_item[item] for item in range(len(dataset.samples))]
        seconds = sum(one.seconds for one in done.values())
        metric, images = dataset.manifest.metric, dataset.image_digests
        cell = self._store.write(work.digest, dataset.samples, images, predictions, settings, metric, seconds, beyond)
        self._store.remove_leftovers(work.digest)  # with the cell there, a late comer needs neither journal nor lock
        return cell
