"""Score every checkpoint on every dataset in one command, keeping each finished batch and cell.

A model is loaded only if a cell is missing. Several processes of one command share a cell batch by batch; several
commands on one outputs folder share the work cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from forgetbench.config import MatrixConfig
from forgetbench.core.processes import ProcessGroup
from forgetbench.core.records import Prediction
from forgetbench.core.store import json_digest
from forgetbench.evaluation.cells import Answered, Block, Cell, CellKey, CellStore
from forgetbench.evaluation.journal import Entry, Journal
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from forgetbench.evaluation.batches import BatchedSet
    from forgetbench.evaluation.runner import Runner

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
    family: str = ""
    """What it shares with cells of other limits; empty where it has no whole block."""

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
    model_digest: str,
    checkpoints: Sequence[Checkpoint],
    datasets: Sequence[EvaluationSet],
    config: MatrixConfig,
    engine: str | None = None,
) -> list[Work]:
    """Every checkpoint on every dataset in every decoding that applies.

    Args:
        model_digest: of the base, as it is scored.
        checkpoints: those that are scored.
        datasets: of the matrix.
        config: how they are asked.
        engine: what runs the model, with its version; None for transformers in this process.
    """
    return [
        _work(model_digest, checkpoint, dataset, replace(settings, engine=engine))
        for checkpoint in checkpoints
        for dataset in datasets
        for settings in dataset.settings(config)
    ]


def _work(model: str, checkpoint: Checkpoint, dataset: EvaluationSet, settings: Settings) -> Work:
    key = CellKey(model, checkpoint.digest, dataset.digest, settings)
    family = ""
    if dataset.fills_a_block:
        family = replace(key, samples=dataset.block_digests[0], settings=replace(settings, block=None)).digest
    return Work(checkpoint, dataset, settings, key.digest, family)


def stored_cells(planned: Sequence[Work], store: CellStore) -> list[ScoredCell]:
    """The cells that are there or are a part of one that is, scored by the present rules."""
    cells = []
    for work in planned:
        metric = work.dataset.manifest.metric
        cell = store.read(work.digest, metric, "it counts as missing") or _part(work, _other(work, store), store)
        if cell is not None:
            cells.append(ScoredCell(work, cell))
    return cells


def _part(work: Work, other: Answered | None, store: CellStore) -> Cell | None:
    """Store a cell whose blocks are all answered in one of another limit; None if not.

    Only the model says which items of a part are longer than its context: it is asked where there are any.
    """
    dataset = work.dataset
    if other is None or other.has_beyond or len(other.blocks) < len(dataset.blocks):
        return None
    cell = store.write(
        work.digest,
        dataset.samples,
        dataset.image_digests,
        [other.predictions[sample.id] for sample in dataset.samples],
        replace(other.settings, block=work.settings.block),
        dataset.manifest.metric,
        sum(one.seconds for one in other.blocks),
        blocks=other.blocks,
        versions=other.versions,
    )
    store.join_family(work.family, work.digest)
    return cell


def _other(work: Work, store: CellStore) -> Answered | None:
    """The first blocks of a cell, from one of another limit; None where there are none."""
    if not work.family:
        return None
    blocks = zip(work.dataset.block_digests, work.dataset.blocks, strict=True)
    ids = {digest: [work.dataset.samples[item].id for item in items] for digest, items in blocks}
    return store.answered(work.family, work.digest, ids)


class Evaluator:
    """Finds finished cells and makes the missing ones."""

    def __init__(self, load: Callable[[], Runner], store: CellStore, process_group: ProcessGroup) -> None:
        """Prepare.

        Args:
            load: loads the model; called once, if a cell is missing.
            store: where cells are.
            process_group: the processes of this command.
        """
        self._load, self._store, self._process_group = load, store, process_group
        self._runner: Runner | None = None

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
                cell, other = self._stored(work), None
                if cell is None and self._process_group.is_main:
                    other = _other(work, self._store)
                    cell = _part(work, other, self._store)
                if cell is not None:
                    self._store.remove_leftovers(work.digest)
                state = self._process_group.broadcast("stored" if cell else "free")
            if state == "free":
                cell = self._make(work, other, advance)
            elif state == "stored":
                advance(work.label, len(work.dataset.samples))
            if state != "busy":
                cells[work.digest] = cell
        return state != "busy"

    def _stored(self, work: Work) -> Cell | None:
        """A stored cell, for the main process."""
        cell = self._store.read(work.digest, work.dataset.manifest.metric) if self._process_group.is_main else None
        if cell is not None:
            self._store.join_family(work.family, work.digest)  # a kill may have come between the two
            self._store.remove_leftovers(work.digest)
        return cell

    def _lock(self, work: Work, held: ExitStack, wait_s: float) -> bool:
        """Hold a cell's lock to the end of `held`; False if another command does."""
        return self._process_group.is_main and held.enter_context(self._store.locked(work.digest, wait_s))

    def _make(self, work: Work, other: Answered | None, advance: Advance) -> Cell | None:
        """Ask the model what neither the journal nor the other cell has; the main process keeps the answers of all."""
        if self._runner is None:
            advance("loading the model", 0)
            self._runner = self._load()
        runner, dataset = self._runner, work.dataset
        runner.move(work.checkpoint)
        advance(f"preparing {dataset.manifest.name}", 0)
        layout, settings = runner.batches(dataset), runner.resolved(dataset, work.settings)
        batches, beyond = layout.batches, runner.beyond_context(dataset, settings)
        items = [json_digest([dataset.samples[item].id for item in batch])[:16] for batch in batches]
        journal = Journal(self._store.partial(work.digest), self._process_group.rank)
        kept = journal.read() if self._process_group.is_main else {}
        done = {number: kept[number] for number in range(len(batches)) if number in kept}
        done = {number: one for number, one in done.items() if one.items == items[number]}
        done = self._process_group.broadcast(done | _shared(other, work, layout, items, settings))
        advance(work.label, sum(len(batches[number]) for number in done))
        left = [number for number in range(len(batches)) if number not in done]
        size, rank = self._process_group.size, self._process_group.rank
        mine: list[tuple[int, Entry]] = []
        for one in runner.answers(dataset, left[rank::size], settings):
            mine.append((one.number, Entry(items[one.number], one.seconds, one.predictions)))
            journal.add(*mine[-1])
            place = left.index(one.number)
            advance(work.label, sum(len(batches[number]) for number in left[place - rank : place - rank + size]))
        done |= dict(self._process_group.gather(mine))
        if not self._process_group.is_main:
            return None
        by_item: dict[int, Prediction] = {}
        for number, batch in enumerate(batches):
            by_item |= dict(zip(batch, done[number].predictions, strict=True))
        predictions = [by_item[item] for item in range(len(dataset.samples))]
        seconds, blocks = sum(one.seconds for one in done.values()), _blocks(work, layout, done)
        metric, images = dataset.manifest.metric, dataset.image_digests
        cell = self._store.write(
            work.digest, dataset.samples, images, predictions, settings, metric, seconds, beyond, blocks
        )
        self._store.join_family(work.family, work.digest)
        self._store.remove_leftovers(work.digest)  # with the cell there, a late comer needs neither journal nor lock
        return cell


def _shared(
    other: Answered | None, work: Work, layout: BatchedSet, items: Sequence[str], settings: Settings
) -> dict[int, Entry]:
    """The batches of the blocks that are answered in a cell of another limit."""
    if other is None or replace(other.settings, block=settings.block) != settings:
        return {}
    found: dict[int, Entry] = {}
    untold = {number: block.seconds for number, block in enumerate(other.blocks)}
    for number, block in enumerate(layout.block_of_batch):
        if block < len(other.blocks):
            predictions = [other.predictions[work.dataset.samples[item].id] for item in layout.batches[number]]
            found[number] = Entry(items[number], untold.pop(block, 0.0), predictions)
    return found


def _blocks(work: Work, layout: BatchedSet, done: Mapping[int, Entry]) -> list[Block]:
    """What a finished cell may share with those of other limits."""
    if not work.family:
        return []
    digests = work.dataset.block_digests
    seconds = [0.0] * len(digests)
    for number, block in enumerate(layout.block_of_batch):
        seconds[block] += done[number].seconds
    return [Block(*one) for one in zip(digests, seconds, strict=True)]
