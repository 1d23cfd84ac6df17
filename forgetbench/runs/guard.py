"""A run that is held to a budget of forgetting: its checkpoints are asked while it trains, and it ends within it.

The answers are cells as `eval-matrix` makes them, of the checkpoints on disk: a copy of the model beside the one that
trains is asked. guard.csv is made of all looks anew at each, so that it is the same however often a run was killed.
Checkpoints after the one that the run ends on are put aside into `beyond_budget/`, and the last one that is left is
the last for everything that reads the run.
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
    """The quadrant of each dataset relative to all that a run is trained on; empty where it is in none.

    Of several stages the nearest counts, so that a dataset stays in one quadrant throughout the run.
    """
    targets = [catalogue.load(name) for name in config.data.sets]
    return {name: place(targets[0], catalogue.load(name), joint=targets).quadrant for name in datasets}


def with_guarded_sets(config: SweepConfig, catalogue: Catalogue) -> SweepConfig:
    """A point of a sweep whose guard asks the matrix's sets outside the target's quadrant, if it names none."""
    if not config.guard.is_on or config.guard.datasets is not None:
        return config
    manifests = {name: catalogue.load(name) for name in config.matrix.datasets}
    quadrants = quadrants_of(config, manifests, catalogue)
    found = [name for name, one in quadrants.items() if one not in ("", QUADRANTS[0])]
    return replace(
        config, guard=replace(config.guard, datasets=[name for name in found if manifests[name].metric.is_fraction])
    )


def ending_of(folder: Path) -> Ending | None:
    """How a guarded run ended; None as long as it has not, and of a run without a guard.

    Raises:
        UserError: its guard.csv is damaged.
    """
    return ending(read_table(folder / GUARD))


def endings(folders: Iterable[Path]) -> dict[str, str]:
    """What is said in a table of runs that their budget stopped or that ended over it, by the name of the run."""
    found = {folder.resolve().name: ending_of(folder) for folder in folders}
    return {name: words for name, one in found.items() if one and (words := short_ending(one))}


def put_aside(folder: Path) -> None:
    """Move the checkpoints of an ended run that lie after the one that it ends on."""
    found = ending_of(folder)
    for one in list_checkpoints(folder) if found else ():
        if found and one.path and one.step > found.step:
            target = folder / BEYOND / one.path.name
            shutil.rmtree(target, ignore_errors=True)  # of an earlier training
            target.parent.mkdir(exist_ok=True)
            one.path.replace(target)


def remaining_steps(folder: Path, keep: Sequence[int]) -> list[int] | None:
    """The steps that an ended run has checkpoints of; None as long as it goes on, or some are still to be put aside.

    Args:
        folder: the run's.
        keep: steps that it would keep if nothing stopped it.
    """
    found = ending_of(folder)
    if found is None:
        return None
    is_left = any((folder / "checkpoints" / step_name(step)).exists() for step in keep if step > found.step)
    return None if is_left else [step for step in keep if step <= found.step]


class Guard:
    """Looks at a run's checkpoints while it trains (`training.run.Watch`)."""

    def __init__(
        self, run: Run, catalogue: Catalogue, steps: Sequence[int], model: SharedCopy, process_group: ProcessGroup
    ) -> None:
        """Read the items, and say what they cannot show.

        Args:
            run: whose training begins or goes on.
            catalogue: of the datasets.
            steps: after which it is looked at, ascending.
            model: asked in place of the one that trains; the method attached.
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
        """By digest, what was asked before; in processes that only help, that it was."""
        sizes = {one.manifest.name: len(one.samples) for one in self._sets}
        if remark := _remark(self._max_loss, self._budget, self._groups, sizes):
            note(remark)

    def look(self, step: int) -> bool:
        """Ask every checkpoint up to a step that is due, write guard.csv; whether training is to end here."""
        started = time.perf_counter()
        due = [one for one in self.steps if one <= step]
        on_disk = {one.step: one for one in list_checkpoints(self._run.folder) if not one.variant}
        checkpoints = [BASE, *(on_disk[one] for one in due)]
        cells = self._ask(checkpoints)
        ended = False
        if self._process_group.is_main:
            looks = self._looks(checkpoints, cells)
            rows = guard_rows(self._run.name, looks, self._groups, self._budget)
            if looks:
                write_csv(rows, self._run.folder / GUARD)
            else:
                (self._run.folder / GUARD).unlink(missing_ok=True)  # of a training that was given up
            ended = ending(rows) is not None
        self.seconds += time.perf_counter() - started
        return self._process_group.broadcast(ended)

    def numbers(self, step: int) -> Mapping[str, float]:
        """What guard.csv says of a step, in the main process."""
        if not self._process_group.is_main:
            return {}
        return guard_numbers(read_table(self._run.folder / GUARD)).get(step, {})

    def end(self) -> None:
        """Put aside what lies beyond the checkpoint that the run ends on, and say how it ended."""
        put_aside(self._run.folder)
        if found := ending_of(self._run.folder):
            say(ending_line(str(self._run.folder), found))

    def tell_cost(self, training_s: float) -> None:
        """Say what the looks took beside training.

        Args:
            training_s: seconds of the optimiser's steps in this process.
        """
        say(cost_line(str(self._run.folder), self.seconds, training_s))

    def _ask(self, checkpoints: Sequence[Checkpoint]) -> list[ScoredCell]:
        """The cells of some checkpoints, checkpoint by checkpoint; none in processes that only help."""
        from forgetbench.evaluation.cells import CellStore
        from forgetbench.evaluation.evaluate import Evaluator

        planned = [work for checkpoint in checkpoints for work in self._planned(checkpoint)]
        new = [work for work in planned if work.digest not in self._answered]
        store = CellStore(self._outputs, self._matrix.reasoning.marks)
        cells = Evaluator(self._asked, store, self._process_group).score(new, lambda *_: None)
        self._answered |= dict.fromkeys(work.digest for work in new) | {cell.work.digest: cell for cell in cells}
        return [cell for work in planned if (cell := self._answered[work.digest])]

    def _planned(self, checkpoint: Checkpoint) -> list[PlannedCell]:
        """Each dataset once: by likelihood, or where answers are open by what is written."""
        from forgetbench.evaluation.evaluate import plan

        digest = scored_digest(self._run.model_digest, self._run.model, self._matrix.precision)
        return [plan(digest, [checkpoint], [one], self._matrix)[0] for one in self._sets]

    def _asked(self) -> ModelRunner:
        from forgetbench.data.collate import shared_encoder
        from forgetbench.evaluation.inference import ModelRunner

        if self._runner is None:
            loaded = self._model.loaded
            encoder = shared_encoder(loaded.processor, self._run.model, loaded.inputs_digest)
            self._runner = ModelRunner(loaded, encoder, self._matrix, self._outputs / ".cache")
        return self._runner

    def _looks(self, checkpoints: Sequence[Checkpoint], cells: Sequence[ScoredCell]) -> list[Look]:
        """What every trained checkpoint answered, beside the base."""
        views = run_subject(self._run).views(cells, self._catalogue)
        names, size = [one.context.dataset for one in views[: len(self._sets)]], len(self._sets)
        return [
            Look(
                stage=views[start].context.stage,
                step=checkpoint.step,
                cells=dict(zip(names, zip(views[:size], views[start : start + size], strict=True), strict=True)),
            )
            for checkpoint, start in zip(checkpoints[1:], range(size, len(views), size), strict=True)
        ]


def _remark(max_loss: float, budget: Budget, groups: Groups, sizes: dict[str, int]) -> str:
    """What to tell of a budget below what so many items can show; empty where they can."""
    totals = {group: sum(sizes[name] for name in members) for group, members in groups.items()}
    group = min(totals, key=lambda one: totals[one])
    n, level = totals[group], budget.level(1)
    told, stopped = (100 * smallest_detectable_loss(loss, n, level) for loss in (0.0, budget.max_loss))
    if max_loss >= told:
        return ""
    remedy = ""
    if max_loss:
        each = -(-items_to_detect(budget.max_loss, level) // len(groups[group]))
        remedy = f" To tell {max_loss:g} points from none takes about guard.items={each * len(sizes):,}."
    looks, share = f"{budget.looks} look{'s' * (budget.looks != 1)}", f"{100 * POWER:g} %"
    return (
        f"guard.max_loss={max_loss:g} is less than so few items can show: with {n} items ({group}) and {looks}, "
        f"at best a loss is told from none from {told:.0f} points on (in {share} of cases), and stops the run from "
        f"{stopped:.0f} on.{remedy}"
    )
