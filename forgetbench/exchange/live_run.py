"""The run folder of a training that another trainer does: its checkpoints, cells and tables, look by look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from forgetbench.config import MatrixConfig, ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.core.processes import ProcessGroup
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import shared_encoder
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.evaluate import Evaluator, ScoredCell, plan
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.evaluation.sets import load_sets
from forgetbench.exchange.layouts import write_log
from forgetbench.exchange.live_config import NAME, Wish, audit_of, config_of, matrix_of, model_config_of, planned_looks
from forgetbench.exchange.live_copy import WholeCopy
from forgetbench.exchange.live_model import (
    Base,
    asked,
    base_of,
    changed_weights,
    check_base,
    inner_model,
    is_sliced,
    trained_names,
)
from forgetbench.models.checkpoint import BASE, Checkpoint, list_checkpoints, save_checkpoint
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.models.precision import scored_digest
from forgetbench.models.pretrained import load_processor
from forgetbench.models.tensors import tensors_digest
from forgetbench.runs.guard import ending_of, quadrants_of
from forgetbench.runs.run import FILE, NOT_KNOWN, TRAINED_BY, Run, check_same, start_run
from forgetbench.runs.scored import Scored, matrix_settings
from forgetbench.runs.subject import run_subject, write_tables
from forgetbench.statistics.sequential import Budget
from forgetbench.tables.guard import GUARD, STOP, Look, groups_of, guard_rows
from forgetbench.tables.scores import write_csv
from forgetbench.tables.tracked import SCORES, score_numbers
from forgetbench.terminal.console import console
from forgetbench.training.plan import plan_stages

if TYPE_CHECKING:
    import pandas as pd
    from transformers import TrainerState, TrainingArguments

T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """What a look found, in every process."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    """As trackers take them."""
    is_broken: bool = False
    """The budget is shown to be broken."""


class LiveRun:
    """A run folder that grows while another trainer trains."""

    def __init__(self, wish: Wish, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        """Read the base and the data, and claim the folder or take it up again.

        Args:
            wish: what was asked for.
            args: of the trainer.
            state: of the trainer; past step 0 it resumes.
            model: as it is trained, on its base or at the step that it resumes from.

        Raises:
            UserError: model, data or folder do not fit.
        """
        self._group = ProcessGroup(args.process_index, args.world_size)
        self._catalogue = Catalogue(wish.manifests)
        self._outputs = Path(wish.outputs)
        self.seconds = 0.0
        """What looking took in this process."""
        model_config = model_config_of(inner_model(model), wish.model)
        self._is_sliced, self._device = is_sliced(model), str(args.device)
        self._copy: WholeCopy | None = None
        self._base: Base = self._by_main(lambda: self._read_base(model_config), together=self._is_sliced)
        if not state.global_step:
            self._by_main(lambda: check_base(model, self._base, model_config.path), together=self._is_sliced)
        self._names = trained_names(model, self._base.fingerprints)
        self._processor = load_processor(model_config)
        self._matrix = matrix_of(wish, model_config, self._catalogue)
        self._sets = load_sets(self._matrix, self._catalogue)
        self._run: Run = self._by_main(lambda: self._start(wish, args, state, model, model_config))
        self._check_resumed(model, state.global_step)
        self.looks = planned_looks(args, state, wish.every)
        """How many there will be; None if that is not known."""
        guarded = wish.guarded(self._catalogue) if wish.budget is not None else []
        self._groups = groups_of(quadrants_of(self._run.config, guarded, self._catalogue), in_mean=False)
        self._budget = Budget((wish.budget or 0.0) / 100, len(self._groups), self.looks) if guarded else None

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._run.folder

    @property
    def steps(self) -> list[int]:
        """The steps that were looked at, in the main process."""
        return [
            checkpoint.step
            for checkpoint in list_checkpoints(self.folder)
            if checkpoint.path and not checkpoint.variant
        ]

    @property
    def was_stopped(self) -> bool:
        """Whether the budget ended this run before."""
        ended = self._by_main(lambda: ending_of(self.folder)) if self._budget else None
        return bool(ended and ended.is_stopped)

    def has_room(self, is_last: bool) -> bool:
        """Whether a budget has a look left here: of the planned ones, one is for the end."""
        if self._budget is None or self.looks is None:
            return True
        done: int = self._by_main(lambda: len(self.steps))
        return done < self.looks - (not is_last)

    def look(self, model: Any, step: int, log: Sequence[Mapping[str, Any]] = (), shows: bool = False) -> Seen:
        """Score the model as it is, and write the tables; every process must call it.

        Args:
            model: as it is trained.
            step: after which it is looked at; 0 is the base.
            log: rows of the trainer's log.
            shows: whether the 2x2 is printed.

        Raises:
            UserError: the answers of an earlier look are gone.
        """
        started = time.perf_counter()
        if step:
            self._by_main(lambda: self._save(model, step), together=self._is_sliced)
        checkpoints: list[Checkpoint] = self._by_main(lambda: self._checkpoints(step))
        cells = self._cells(model, checkpoints)
        seen: Seen = self._by_main(lambda: self._written(checkpoints, cells, log, shows))
        self.seconds += (took := time.perf_counter() - started)
        return replace(seen, numbers={**seen.numbers, f"{SCORES}seconds": took, f"{SCORES}all_seconds": self.seconds})

    def _by_main(self, make: Callable[[], T], together: bool = False) -> T:
        """What the main process makes, in every process; what one is refused is raised in all of them.

        Args:
            make: makes it.
            together: whether the others make it, too, as slices are gathered.
        """
        made: Any = None
        error = ""
        if self._group.is_main or together:
            try:
                made = make()
            except UserError as refused:
                error = str(refused)
        errors = self._group.gather([error])
        made = self._group.broadcast(made)
        if error := next(filter(None, errors), ""):
            raise UserError(error)
        return made  # type: ignore[no-any-return]

    def _read_base(self, config: ModelConfig) -> Base:
        """What the base is known by; its weights are kept where a copy is to be asked."""
        if not self._is_sliced:
            return base_of(load_model(config))
        self._copy = WholeCopy(config)
        return base_of(self._copy.loaded)

    def _start(
        self, wish: Wish, args: TrainingArguments, state: TrainerState, model: Any, model_config: ModelConfig
    ) -> Run:
        config, unknown = config_of(wish, args, state, model, model_config)
        folder = self._outputs / config.name
        _check_folder(folder, state.global_step)
        stages = plan_stages(config, self._catalogue)
        check_same(folder, config, [stage.data_digest for stage in stages], self._base.digest)
        folder.mkdir(parents=True, exist_ok=True)
        loaded = self._loaded(None, model_config.name)
        run = start_run(folder, config, stages, loaded, audit_of(model))
        run = replace(
            run,
            environment={
                **run.environment,
                TRAINED_BY: f"{NAME}(target={wish.target!r}, matrix={list(wish.matrix)!r}, items={wish.items})",
                NOT_KNOWN: ", ".join(f"recipe.{name}" for name in unknown),
            },
        )
        run.write()
        return run

    def _check_resumed(self, model: Any, step: int) -> None:
        """Refuse a trainer that goes on from a step with other weights than it had there."""
        checkpoints: list[Checkpoint] = self._by_main(lambda: list_checkpoints(self.folder))
        if kept := [
            checkpoint
            for checkpoint in checkpoints
            if checkpoint.step == step and checkpoint.path and not checkpoint.variant
        ]:
            self._by_main(lambda: self._check_weights(model, kept[0]), together=self._is_sliced)

    def _check_weights(self, model: Any, kept: Checkpoint) -> None:
        delta = changed_weights(model, self._base, self._names, keeps=self._group.is_main)
        if self._group.is_main and tensors_digest(delta, self._run.meta["method"]) != kept.digest:
            raise UserError(
                f"{NAME}: the trainer goes on from step {kept.step}, but the model's weights are not those of step "
                f"{kept.step}: it did not load its checkpoint (transformers' Trainer does not where a family's files "
                "have other names; its log tells of missing keys). Load the model itself by "
                f"from_pretrained('.../checkpoint-{kept.step}'), and name the base: "
                f"{NAME}(model={self._run.model.path!r})."
            )

    def _loaded(self, model: Any, name: str) -> LoadedModel:
        base = self._base
        return LoadedModel(
            model, self._processor, name, base.digest, base.inputs_digest, base.reuses_prefix, base.keeps_logits
        )

    def _save(self, model: Any, step: int) -> None:
        """Write the step's checkpoint."""
        delta = changed_weights(model, self._base, self._names, keeps=self._group.is_main)
        if self._group.is_main:
            save_checkpoint(self.folder, step, delta, {**self._run.meta, "stage": 1})

    def _checkpoints(self, step: int) -> list[Checkpoint]:
        """The base and every checkpoint up to a step."""
        return [
            checkpoint
            for checkpoint in list_checkpoints(self.folder)
            if checkpoint.step <= step and not checkpoint.variant
        ]

    def _cells(self, model: Any, checkpoints: Sequence[Checkpoint]) -> list[ScoredCell]:
        """Every checkpoint's cells; those of the last one are asked of the model now."""
        digest = scored_digest(self._base.digest, self._run.model, self._matrix.precision)
        planned = plan(digest, checkpoints, self._sets, self._matrix)
        store = CellStore(self._outputs, self._matrix.reasoning.marks)
        with self._asked(model, checkpoints[-1]) as runner:
            return Evaluator(runner, store, self._group).score(planned, lambda *_: None)

    @contextmanager
    def _asked(self, model: Any, now: Checkpoint) -> Iterator[Callable[[], ModelRunner]]:
        """What makes a runner of the model that trains, or of the copy in its place."""
        encoder = shared_encoder(self._processor, self._run.model, self._base.inputs_digest)
        cache = self._outputs / ".cache"
        if self._copy is not None:
            with self._copy.asked() as copy:
                yield lambda: ModelRunner(copy, encoder, self._matrix, cache, self._device)
            return
        with asked(model, self._base, with_adapters=now is not BASE) as inner:
            device = str(next(inner.parameters()).device)
            loaded = self._loaded(inner, self._run.model.name)
            yield lambda: _Runner(loaded, encoder, self._matrix, cache, device, now)

    def _written(
        self,
        checkpoints: Sequence[Checkpoint],
        cells: Sequence[ScoredCell],
        log: Sequence[Mapping[str, Any]],
        shows: bool,
    ) -> Seen:
        """The tables, and what is told of the last checkpoint."""
        subject, step = run_subject(self._run), checkpoints[-1].step
        scored = Scored(matrix_settings(self._matrix), self._run.config.manifests, self._outputs)
        if shows:
            tables = write_tables(subject, cells, self._catalogue, scored)
        else:
            with console.capture():
                tables = write_tables(subject, cells, self._catalogue, scored)
        write_log(log, self._run.parts, self.folder / "train.csv")
        guard = self._guarded(checkpoints, cells) if step and self._budget else None
        is_broken = guard is not None and guard["decision"].iloc[-1] == STOP
        return Seen(score_numbers(tables.matrix, tables.summary, guard).get(step, {}), is_broken)

    def _guarded(self, checkpoints: Sequence[Checkpoint], cells: Sequence[ScoredCell]) -> pd.DataFrame:
        """Write guard.csv of all looks so far."""
        assert self._budget
        views = run_subject(self._run).views(cells, self._catalogue)
        guarded = {name for members in self._groups.values() for name in members}
        by_place = {(view.context.step, view.context.dataset): view for view in reversed(views)}
        looks = [
            Look(
                1,
                checkpoint.step,
                {name: (by_place[0, name], by_place[checkpoint.step, name]) for name in sorted(guarded)},
            )
            for checkpoint in checkpoints[1:]
        ]
        rows = guard_rows(self._run.name, looks, self._groups, self._budget)
        write_csv(rows, self.folder / GUARD)
        return rows


def _check_folder(folder: Path, step: int) -> None:
    """Refuse a folder that a training which starts anew, or goes on from a step, cannot take.

    Raises:
        UserError: says what to do instead.
    """
    is_there = (folder / FILE).is_file()
    steps = [checkpoint.step for checkpoint in list_checkpoints(folder) if checkpoint.path] if is_there else []
    if not step and steps:
        raise UserError(
            f"{folder} holds a run with checkpoints up to step {max(steps)}, and this training starts anew. Go on with "
            f"resume_from_checkpoint, give {NAME}(name=...), or delete the folder."
        )
    if step and not is_there:
        raise UserError(
            f"{folder} holds no run, and this training goes on from step {step}: the base row is made before the first "
            f"step. Start from the beginning, or give the name of the run that was begun ({NAME}(name=...)); "
            "checkpoints that are there are scored with `forgetbench import`."
        )


class _Runner(ModelRunner):
    """Asks a model that trains, which is at one checkpoint and stays there."""

    def __init__(
        self, loaded: LoadedModel, encoder: Any, config: MatrixConfig, cache: Path, device: str, at: Checkpoint
    ) -> None:
        super().__init__(loaded, encoder, config, cache, device)
        self._is_at = at

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Stay.

        Raises:
            UserError: answers of another checkpoint are missing.
        """
        if checkpoint.step != self._is_at.step:
            raise UserError(
                f"{NAME}: the answers of {checkpoint.name} are no longer among the cells, and the model that trains is "
                f"at step {self._is_at.step}. Restore the folder .cells, or start the training anew under another name."
            )
