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
from forgetbench.evaluation.cells import Block, Cell, CellKey, CellStore, SharedBlocks
from forgetbench.evaluation.journal import Entry, Journal
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from forgetbench.evaluation.batches import BatchedSet
    from forgetbench.evaluation.runner import Runner

_LOCK_WAIT_S = 20.0

Advance = Callable[[str, int], None]
"""Called with a description and the number of items that were finished."""


@dataclass(frozen=True)
class PlannedCell:
    """One cell to read from the store or to make."""

    checkpoint: Checkpoint
    dataset: EvaluationSet
    settings: Settings
    digest: str
    family: str = ""
    """Digest of what it shares with cells of other limits; empty if it has no whole block."""

    @property
    def label(self) -> str:
        """What a progress bar says."""
        return f"{self.checkpoint.name} {self.dataset.manifest.name} {self.settings.decoding}"


@dataclass(frozen=True)
class ScoredCell:
    """A finished cell with its checkpoint, dataset and settings."""

    work: PlannedCell
    cell: Cell


def plan(
    model_digest: str,
    checkpoints: Sequence[Checkpoint],
    datasets: Sequence[EvaluationSet],
    config: MatrixConfig,
    engine: str | None = None,
) -> list[PlannedCell]:
    """Every checkpoint on every dataset in every decoding that applies.

    Args:
        model_digest: of the base, as it is scored.
        checkpoints: to score.
        datasets: of the matrix.
        config: decodings and other settings.
        engine: name and version of the program that runs the model; None for transformers in this process.
    """
    return [
        _plan_cell(model_digest, checkpoint, dataset, replace(settings, engine=engine))
        for checkpoint in checkpoints
        for dataset in datasets
        for settings in dataset.settings(config)
    ]


def _plan_cell(model: str, checkpoint: Checkpoint, dataset: EvaluationSet, settings: Settings) -> PlannedCell:
    key = CellKey(model, checkpoint.digest, dataset.digest, settings)
    family = ""
    if dataset.fills_a_block:
        family = replace(key, samples=dataset.block_digests[0], settings=replace(settings, block=None)).digest
    return PlannedCell(checkpoint, dataset, settings, key.digest, family)


def stored_cells(planned: Sequence[PlannedCell], store: CellStore) -> list[ScoredCell]:
    """The cells that are stored, or that are a part of a stored cell, scored by the present rules."""
    cells = []
    for work in planned:
        metric = work.dataset.manifest.metric
        cell = store.read(work.digest, metric, "it counts as missing") or _cell_from_shared_blocks(
            work, _find_shared_blocks(work, store), store
        )
        if cell is not None:
            cells.append(ScoredCell(work, cell))
    return cells


def _cell_from_shared_blocks(work: PlannedCell, shared: SharedBlocks | None, store: CellStore) -> Cell | None:
    """Store a cell whose blocks are all in a cell with another limit; None if some are missing.

    None also if that cell has items beyond the model's context: only the model can tell which of them are in this cell.
    """
    dataset = work.dataset
    if shared is None or shared.exceeds_context or len(shared.blocks) < len(dataset.blocks):
        return None
    cell = store.write(
        work.digest,
        dataset.samples,
        dataset.image_digests,
        [shared.predictions[sample.id] for sample in dataset.samples],
        replace(shared.settings, block=work.settings.block),
        dataset.manifest.metric,
        sum(block.seconds for block in shared.blocks),
        blocks=shared.blocks,
        versions=shared.versions,
    )
    store.add_to_family(work.family, work.digest)
    return cell


def _find_shared_blocks(work: PlannedCell, store: CellStore) -> SharedBlocks | None:
    """The first blocks of a cell, from a cell with another limit; None if there is no such cell."""
    if not work.family:
        return None
    blocks = zip(work.dataset.block_digests, work.dataset.blocks, strict=True)
    ids = {digest: [work.dataset.samples[item].id for item in items] for digest, items in blocks}
    return store.shared_blocks(work.family, work.digest, ids)


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

    def score(self, planned: Sequence[PlannedCell], advance: Advance) -> list[ScoredCell]:
        """Every cell of the plan in order, stored or new; empty in all processes but the main one.

        A cell that another command is making is left for later, then waited for.
        """
        cells: dict[str, Cell | None] = {}
        busy = [work for work in planned if not self._try_score(work, cells, advance, wait_s=0)]
        while busy:  # in short turns: the other processes of this command must not wait in silence for long
            busy = [work for work in busy if not self._try_score(work, cells, advance, wait_s=_LOCK_WAIT_S)]
        return [ScoredCell(work, cell) for work in planned if (cell := cells[work.digest]) is not None]

    def _try_score(self, work: PlannedCell, cells: dict[str, Cell | None], advance: Advance, wait_s: float) -> bool:
        """Read or make one cell; False if another command is making it."""
        with ExitStack() as stack:
            cell = self._stored(work)
            state = "stored" if cell else "free" if self._lock(work, stack, wait_s) else "busy"
            state = self._process_group.broadcast(state)
            if state == "free":
                # While this process waited for the lock, another may have made the cell.
                cell, shared = self._stored(work), None
                if cell is None and self._process_group.is_main:
                    shared = _find_shared_blocks(work, self._store)
                    cell = _cell_from_shared_blocks(work, shared, self._store)
                if cell is not None:
                    self._store.remove_leftovers(work.digest)
                state = self._process_group.broadcast("stored" if cell else "free")
            if state == "free":
                cell = self._make(work, shared, advance)
            elif state == "stored":
                advance(work.label, len(work.dataset.samples))
            if state != "busy":
                cells[work.digest] = cell
        return state != "busy"

    def _stored(self, work: PlannedCell) -> Cell | None:
        """A stored cell, for the main process."""
        cell = self._store.read(work.digest, work.dataset.manifest.metric) if self._process_group.is_main else None
        if cell is not None:
            # After the cell was written, a kill may have prevented this.
            self._store.add_to_family(work.family, work.digest)
            self._store.remove_leftovers(work.digest)
        return cell

    def _lock(self, work: PlannedCell, stack: ExitStack, wait_s: float) -> bool:
        """Hold a cell's lock until `stack` closes; False if another command holds it."""
        return self._process_group.is_main and stack.enter_context(self._store.locked(work.digest, wait_s))

    def _make(self, work: PlannedCell, shared: SharedBlocks | None, advance: Advance) -> Cell | None:
        """Ask the model the batches that neither journal nor shared blocks have; the main process stores the cell."""
        if self._runner is None:
            advance("loading the model", 0)
            self._runner = self._load()
        runner, dataset = self._runner, work.dataset
        runner.use_checkpoint(work.checkpoint)
        advance(f"preparing {dataset.manifest.name}", 0)
        layout, settings = runner.batches(dataset), runner.resolve(dataset, work.settings)
        batches, beyond = layout.batches, runner.beyond_context(dataset, settings)
        items = [json_digest([dataset.samples[item].id for item in batch])[:16] for batch in batches]
        journal = Journal(self._store.partial(work.digest), self._process_group.rank)
        journalled = journal.read() if self._process_group.is_main else {}
        done = {number: journalled[number] for number in range(len(batches)) if number in journalled}
        done = {number: entry for number, entry in done.items() if entry.items == items[number]}
        done = self._process_group.broadcast(done | _shared_entries(shared, work, layout, items, settings))
        advance(work.label, sum(len(batches[number]) for number in done))
        left = [number for number in range(len(batches)) if number not in done]
        size, rank = self._process_group.size, self._process_group.rank
        new_entries: list[tuple[int, Entry]] = []
        for answers in runner.answers(dataset, left[rank::size], settings):
            new_entries.append((answers.number, Entry(items[answers.number], answers.seconds, answers.predictions)))
            journal.add(*new_entries[-1])
            place = left.index(answers.number)
            advance(work.label, sum(len(batches[number]) for number in left[place - rank : place - rank + size]))
        done |= dict(self._process_group.gather(new_entries))
        if not self._process_group.is_main:
            return None
        by_item: dict[int, Prediction] = {}
        for number, batch in enumerate(batches):
            by_item |= dict(zip(batch, done[number].predictions, strict=True))
        predictions = [by_item[item] for item in range(len(dataset.samples))]
        seconds, blocks = sum(entry.seconds for entry in done.values()), _blocks(work, layout, done)
        metric, images = dataset.manifest.metric, dataset.image_digests
        cell = self._store.write(
            work.digest, dataset.samples, images, predictions, settings, metric, seconds, beyond, blocks
        )
        self._store.add_to_family(work.family, work.digest)
        self._store.remove_leftovers(work.digest)  # the cell is stored: nobody needs its journal or lock any more
        return cell


def _shared_entries(
    shared: SharedBlocks | None, work: PlannedCell, layout: BatchedSet, items: Sequence[str], settings: Settings
) -> dict[int, Entry]:
    """The batches of the blocks that a cell with another limit has answered."""
    if shared is None or replace(shared.settings, block=settings.block) != settings:
        return {}
    entries: dict[int, Entry] = {}
    seconds_left = {number: block.seconds for number, block in enumerate(shared.blocks)}
    for number, block in enumerate(layout.block_of_batch):
        if block < len(shared.blocks):
            predictions = [shared.predictions[work.dataset.samples[item].id] for item in layout.batches[number]]
            entries[number] = Entry(items[number], seconds_left.pop(block, 0.0), predictions)
    return entries


def _blocks(work: PlannedCell, layout: BatchedSet, done: Mapping[int, Entry]) -> list[Block]:
    """The blocks that a finished cell may share with cells of other limits."""
    if not work.family:
        return []
    digests = work.dataset.block_digests
    seconds = [0.0] * len(digests)
    for number, block in enumerate(layout.block_of_batch):
        seconds[block] += done[number].seconds
    return [Block(*pair) for pair in zip(digests, seconds, strict=True)]
