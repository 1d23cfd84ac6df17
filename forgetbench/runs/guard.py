"""Guard a run by a budget of forgetting: score its checkpoints during training, and end the run within the budget.

The checkpoints on disk are scored with a second copy of the model, into the same cells as by `eval-matrix`. Each look
writes guard.csv again from all looks so far, so that kills and restarts do not change it. Checkpoints after the one
that the run ends on are moved to `beyond_budget/`; everything that reads the run sees the last remaining checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetbench.config import FinetuneConfig, MatrixConfig, Over, RepresentationConfig, SweepConfig
from forgetbench.core.confidence import POWER
from forgetbench.core.processes import ProcessGroup
from forgetbench.core.records import QUADRANTS, Decoding
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.quadrant import place
from forgetbench.models.checkpoint import BASE, Checkpoint, list_checkpoints, step_name
from forgetbench.models.precision import scored_digest
from forgetbench.runs.run import Run
from forgetbench.runs.stored import outputs_of, read_table
from forgetbench.runs.subject import run_subject
from forgetbench.statistics.sequential import Budget, items_to_detect, smallest_detectable_loss
from forgetbench.tables.guard import GUARD, Ending, Groups, Look, ending, groups_of, guard_rows
from forgetbench.tables.scores import write_csv
from forgetbench.tables.tracked import guard_numbers
from forgetbench.terminal.console import note, say
from forgetbench.terminal.guard import cost_line, ending_line, short_ending

if TYPE_CHECKING:
    from forgetbench.evaluation.evaluate import PlannedCell, ScoredCell
    from forgetbench.evaluation.inference import ModelRunner
    from forgetbench.models.copies import SharedCopy

BEYOND = "beyond_budget"
"""Folder of a run with the checkpoints after the one that it ends on."""


def quadrants_of(config: FinetuneConfig, datasets: Collection[str], catalogue: Catalogue) -> dict[str, str]:
    """The quadrant of each dataset relative to all of a run's targets; empty if it is in no quadrant.

    The nearest target of all stages decides, so that a dataset stays in the same quadrant throughout the run.
    """
    targets = [catalogue.load(name) for name in config.data.sets]
    return {name: place(targets[0], catalogue.load(name), joint=targets).quadrant for name in datasets}


def with_guarded_sets(config: SweepConfig, catalogue: Catalogue) -> SweepConfig:
    """Set the guard's datasets of a sweep's point, by default the matrix's datasets outside the target's quadrant."""
    if not config.guard.is_on or config.guard.datasets is not None:
        return config
    manifests = {name: catalogue.load(name) for name in config.matrix.datasets}
    quadrants = quadrants_of(config, manifests, catalogue)
    names = [name for name, quadrant in quadrants.items() if quadrant not in ("", QUADRANTS[0])]
    return replace(
        config, guard=replace(config.guard, datasets=[name for name in names if manifests[name].metric.is_fraction])
    )


def ending_of(folder: Path) -> Ending | None:
    """How a guarded run ended; None if it has not ended or has no guard.

    Raises:
        UserError: guard.csv is damaged.
    """
    return ending(read_table(folder / GUARD))


def endings(folders: Iterable[Path]) -> dict[str, str]:
    """Run name -> note for tables, for runs that their budget stopped or that ended over it."""
    by_name = {folder.resolve().name: ending_of(folder) for folder in folders}
    return {name: words for name, run_ending in by_name.items() if run_ending and (words := short_ending(run_ending))}


def move_beyond_budget(folder: Path) -> None:
    """Move the checkpoints after the one that an ended run ends on to `beyond_budget/`."""
    run_ending = ending_of(folder)
    for checkpoint in list_checkpoints(folder) if run_ending else ():
        if run_ending and checkpoint.path and checkpoint.step > run_ending.step:
            target = folder / BEYOND / checkpoint.path.name
            shutil.rmtree(target, ignore_errors=True)  # left by an earlier training
            target.parent.mkdir(exist_ok=True)
            checkpoint.path.replace(target)


def remaining_steps(folder: Path, keep: Sequence[int]) -> list[int] | None:
    """The checkpoint steps of an ended run; None if it has not ended, or checkpoints have yet to be moved.

    Args:
        folder: the run's folder.
        keep: steps whose checkpoints the run would keep without a guard.
    """
    run_ending = ending_of(folder)
    if run_ending is None:
        return None
    is_left = any((folder / "checkpoints" / step_name(step)).exists() for step in keep if step > run_ending.step)
    return None if is_left else [step for step in keep if step <= run_ending.step]


class Guard:
    """Scores a run's checkpoints during training (`training.run.Watch`)."""

    def __init__(
        self, run: Run, catalogue: Catalogue, steps: Sequence[int], model: SharedCopy, process_group: ProcessGroup
    ) -> None:
        """Read the items, and warn if they are too few for the budget.

        Args:
            run: the run to train or resume.
            catalogue: the manifests of the datasets.
            steps: steps after which checkpoints are scored, ascending.
            model: the copy that is scored instead of the training model, with the method attached.
            process_group: the processes of this command.

        Raises:
            UserError: a dataset cannot be read.
        """
        from forgetbench.evaluation.sets import load_sets

        settings, names = run.config.guard, run.config.guard.datasets or []
        self.steps = steps
        self.seconds = 0.0
        """What looking took in this process."""
        self._run, self._catalogue, self._model, self._process_group = run, catalogue, model, process_group
        self._matrix = MatrixConfig(
            datasets=names,
            decodings=[Decoding.choice, Decoding.greedy],
            limit=settings.items // len(names),
            batch_size=settings.batch_size,
            precision=settings.precision,
            representation=RepresentationConfig(enabled=False),
        )
        self._sets = load_sets(self._matrix, catalogue)
        self._groups = groups_of(quadrants_of(run.config, names, catalogue), settings.over is Over.mean)
        self._max_loss = settings.max_loss or 0.0
        self._budget = Budget(self._max_loss / 100, len(self._groups), len(steps))
        self._outputs = outputs_of(run, Path(run.config.outputs))
        self._runner: ModelRunner | None = None
        self._answered: dict[str, ScoredCell | None] = {}
        """Digest -> scored cell of earlier looks; None in processes other than the main one."""
        sizes = {dataset.manifest.name: len(dataset.samples) for dataset in self._sets}
        if remark := _power_warning(self._max_loss, self._budget, self._groups, sizes):
            note(remark)

    def look(self, step: int) -> bool:
        """Score all due checkpoints up to a step and write guard.csv; returns whether training should end here."""
        started = time.perf_counter()
        due = [due_step for due_step in self.steps if due_step <= step]
        on_disk = {
            checkpoint.step: checkpoint for checkpoint in list_checkpoints(self._run.folder) if not checkpoint.variant
        }
        checkpoints = [BASE, *(on_disk[due_step] for due_step in due)]
        cells = self._score(checkpoints)
        ended = False
        if self._process_group.is_main:
            looks = self._looks(checkpoints, cells)
            rows = guard_rows(self._run.name, looks, self._groups, self._budget)
            if looks:
                write_csv(rows, self._run.folder / GUARD)
            else:
                (self._run.folder / GUARD).unlink(missing_ok=True)  # left by an abandoned training
            ended = ending(rows) is not None
        self.seconds += time.perf_counter() - started
        return self._process_group.broadcast(ended)

    def numbers(self, step: int) -> Mapping[str, float]:
        """What guard.csv says of a step, in the main process."""
        if not self._process_group.is_main:
            return {}
        return guard_numbers(read_table(self._run.folder / GUARD)).get(step, {})

    def end(self) -> None:
        """Move the checkpoints after the one that the run ends on, and report how it ended."""
        move_beyond_budget(self._run.folder)
        if run_ending := ending_of(self._run.folder):
            say(ending_line(str(self._run.folder), run_ending))

    def tell_cost(self, training_s: float) -> None:
        """Report the time of the looks compared with training.

        Args:
            training_s: seconds of optimiser steps in this process.
        """
        say(cost_line(str(self._run.folder), self.seconds, training_s))

    def _score(self, checkpoints: Sequence[Checkpoint]) -> list[ScoredCell]:
        """The scored cells, checkpoint by checkpoint; empty in processes other than the main one."""
        from forgetbench.evaluation.cells import CellStore
        from forgetbench.evaluation.evaluate import Evaluator

        planned = [work for checkpoint in checkpoints for work in self._planned(checkpoint)]
        new = [work for work in planned if work.digest not in self._answered]
        store = CellStore(self._outputs, self._matrix.reasoning.marks)
        cells = Evaluator(self._model_runner, store, self._process_group).score(new, lambda *_: None)
        self._answered |= dict.fromkeys(work.digest for work in new) | {cell.work.digest: cell for cell in cells}
        return [cell for work in planned if (cell := self._answered[work.digest])]

    def _planned(self, checkpoint: Checkpoint) -> list[PlannedCell]:
        """A planned cell per dataset: decoded by likelihood or, for open answers, by generation."""
        from forgetbench.evaluation.evaluate import plan

        digest = scored_digest(self._run.model_digest, self._run.model, self._matrix.precision)
        return [plan(digest, [checkpoint], [dataset], self._matrix)[0] for dataset in self._sets]

    def _model_runner(self) -> ModelRunner:
        from forgetbench.data.collate import shared_encoder
        from forgetbench.evaluation.inference import ModelRunner

        if self._runner is None:
            loaded = self._model.loaded
            encoder = shared_encoder(loaded.processor, self._run.model, loaded.inputs_digest)
            self._runner = ModelRunner(loaded, encoder, self._matrix, self._outputs / ".cache")
        return self._runner

    def _looks(self, checkpoints: Sequence[Checkpoint], cells: Sequence[ScoredCell]) -> list[Look]:
        """The cells of every trained checkpoint, paired with the base's cells."""
        views = run_subject(self._run).views(cells, self._catalogue)
        names, size = [view.context.dataset for view in views[: len(self._sets)]], len(self._sets)
        return [
            Look(
                stage=views[start].context.stage,
                step=checkpoint.step,
                cells=dict(zip(names, zip(views[:size], views[start : start + size], strict=True), strict=True)),
            )
            for checkpoint, start in zip(checkpoints[1:], range(size, len(views), size), strict=True)
        ]


def _power_warning(max_loss: float, budget: Budget, groups: Groups, sizes: dict[str, int]) -> str:
    """A warning if the budget is smaller than the loss that this number of items can detect; else empty."""
    totals = {group: sum(sizes[name] for name in members) for group, members in groups.items()}
    group = min(totals, key=lambda group_name: totals[group_name])
    n, level = totals[group], budget.level(1)
    detectable, stopped = (100 * smallest_detectable_loss(loss, n, level) for loss in (0.0, budget.max_loss))
    if max_loss >= detectable:
        return ""
    remedy = ""
    if max_loss:
        each = -(-items_to_detect(budget.max_loss, level) // len(groups[group]))
        remedy = f" To tell {max_loss:g} points from none takes about guard.items={each * len(sizes):,}."
    looks, share = f"{budget.looks} look{'s' * (budget.looks != 1)}", f"{100 * POWER:g} %"
    return (
        f"guard.max_loss={max_loss:g} is less than so few items can show: with {n} items ({group}) and {looks}, "
        f"at best a loss is told from none from {detectable:.0f} points on (in {share} of cases), and stops the run "
        f"from {stopped:.0f} on.{remedy}"
    )
