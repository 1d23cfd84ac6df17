"""`forgetbench eval-matrix`: score every checkpoint over the matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from omegaconf import MISSING

from forgetbench.config import Engine, EngineConfig, EvalMatrixConfig, ModelConfig, SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.files import clear_once
from forgetbench.core.processes import ProcessGroup, join_process_group, set_threads
from forgetbench.core.shell import argument
from forgetbench.data.catalogue import Catalogue
from forgetbench.runs.address import resolve
from forgetbench.runs.run import Run
from forgetbench.runs.scored import Scored, matrix_settings
from forgetbench.runs.stored import lost_checkpoints, outputs_of, read_table
from forgetbench.runs.subject import (
    Subject,
    Tables,
    bare_subject,
    base_folder,
    model_label,
    run_subject,
    with_tasks,
    write_representation,
    write_tables,
)
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.guard import GUARD
from forgetbench.tables.tracked import score_numbers
from forgetbench.terminal.progress import progress
from forgetbench.training.tracking import send_scores

if TYPE_CHECKING:
    from forgetbench.evaluation.evaluate import ScoredCell
    from forgetbench.evaluation.inference import ModelRunner
    from forgetbench.evaluation.runner import Runner
    from forgetbench.evaluation.sets import EvaluationSet
    from forgetbench.models.checkpoint import Checkpoint
    from forgetbench.models.held import HeldModel
    from forgetbench.models.load import LoadedModel
    from forgetbench.serving.engines import EngineIdentity


def eval_matrix(config: EvalMatrixConfig, outputs: Path) -> Path:
    """Score a run's checkpoints (or the base model alone) on every dataset of the matrix.

    Returns:
        The folder of the tables.

    Raises:
        UserError: there is no such run, or the data or the model do not fit.
    """
    if config.run is not None:
        base = "" if config.model == MISSING else config.model.path
        run = resolve(config.run).whole().run()
        score_run(run, config, base)
        return run.folder
    from forgetbench.models.checkpoint import BASE
    from forgetbench.models.held import HeldModel
    from forgetbench.models.load import load_model
    from forgetbench.models.precision import resolve_attention, scored_digest

    catalogue = Catalogue(config.manifests)
    set_threads(config.threads)
    model = resolve_attention(config.model, config.matrix.precision)

    def load() -> tuple[LoadedModel, ModelConfig]:
        return load_model(model, config.seed), config.model

    held_model = HeldModel(load)
    loaded_digest = held_model.get()[0].digest
    digest = scored_digest(loaded_digest, model, config.matrix.precision)
    label = model_label(config.model, loaded_digest)
    folder = base_folder(outputs, config.name, label, config.data.sets[0])
    subject = bare_subject(folder, label, config.data, config.seed, catalogue)
    _score(subject, config, outputs, [BASE], digest, held_model)
    return folder


def score_run(run: Run, config: EvalMatrixConfig | SweepConfig, base: str = "") -> pd.DataFrame:
    """Score a run's checkpoints; the model is loaded only if a cell is missing.

    Args:
        run: a trained run.
        config: what is scored, and where.
        base: where the run's base is now, if it has moved.

    Returns:
        The matrix.

    Raises:
        UserError: the tables have rows of a checkpoint that is gone.
    """
    if message := lost_checkpoints(run):
        raise UserError(
            f"{message}; they stay as they are. Restore it, or leave these rows out first: "
            f"`forgetbench score {argument('run', run.folder)} --partial`."
        )
    return _score(*_run_inputs(run, config, base))


def run_views(run: Run, config: SweepConfig) -> list[CellView]:
    """Score a run's checkpoints as `score_run` does, and write no table.

    Args:
        run: a run, which may be trained in part.
        config: what is scored, and where.
    """
    subject, _, outputs, checkpoints, digest, held_model = _run_inputs(run, config)
    subject_cells = _collect_cells(subject, config, outputs, checkpoints, digest, held_model)
    return subject.views(subject_cells.cells, subject_cells.catalogue)


def _run_inputs(
    run: Run, config: EvalMatrixConfig | SweepConfig, base: str = ""
) -> tuple[Subject, EvalMatrixConfig | SweepConfig, Path, Sequence[Checkpoint], str, HeldModel]:
    """The arguments of `_score` for a run."""
    from forgetbench.models.held import HeldModel
    from forgetbench.models.precision import scored_digest

    def load() -> tuple[LoadedModel, ModelConfig]:
        set_threads(config.threads)
        run_with_base = run.with_base_at(base)
        trusted = isinstance(config, SweepConfig) and config.model.trust_remote_code
        return run_with_base.load_base(trusted=trusted), run_with_base.model

    digest = scored_digest(run.model_digest, run.model, config.matrix.precision)
    outputs = outputs_of(run, Path(config.outputs))
    return run_subject(run), config, outputs, run.checkpoints(config.matrix.steps), digest, HeldModel(load)


@dataclass(frozen=True)
class _SubjectCells:
    """The cells of a subject, and what made them."""

    cells: Sequence[ScoredCell]
    sets: Sequence[EvaluationSet]
    runner: Callable[[], ModelRunner]
    process_group: ProcessGroup
    catalogue: Catalogue
    engine: str | None


def _collect_cells(
    subject: Subject,
    config: EvalMatrixConfig | SweepConfig,
    outputs: Path,
    checkpoints: Sequence[Checkpoint],
    model_digest: str,
    held_model: HeldModel,
) -> _SubjectCells:
    """Fetch or make every cell of a subject."""
    from forgetbench.evaluation.cells import CellStore
    from forgetbench.evaluation.evaluate import Evaluator, plan
    from forgetbench.evaluation.sets import load_sets

    process_group, catalogue = join_process_group(), Catalogue(config.manifests)
    clear_once(outputs)  # weights that were written for a server, by a command that was killed
    matrix = with_tasks(config.matrix, subject, catalogue)
    engine = _engine_identity(config.engine, process_group)

    @cache
    def runner() -> ModelRunner:
        from forgetbench.data.collate import shared_encoder
        from forgetbench.evaluation.inference import ModelRunner

        loaded, model = held_model.get()
        if subject.run:
            subject.run.attach_method(loaded.model)
        encoder = shared_encoder(loaded.processor, model, loaded.inputs_digest)
        return ModelRunner(loaded, encoder, matrix, outputs / ".cache")

    sets = load_sets(matrix, catalogue)
    planned = plan(model_digest, checkpoints, sets, matrix, engine.label if engine else None)
    if not planned:
        raise UserError("matrix.decodings: none of them applies to these datasets; open answers are decoded greedily.")
    store = CellStore(outputs, matrix.reasoning.marks)
    n_items = sum(len(work.dataset.samples) for work in planned)
    with ExitStack() as stack:
        make_runner: Callable[[], Runner] = runner
        if engine:
            from forgetbench.serving.session import ScoringJob, server_session

            missing = [work for work in planned if not store.path(work.digest).exists()]
            model = subject.run.model if subject.run else config.model
            work = ScoringJob(
                config.engine,
                engine,
                matrix,
                subject.run,
                model,
                model_digest,
                subject.folder,
                outputs,
                missing,
                held_model,
            )
            make_runner = stack.enter_context(server_session(work))
        advance = stack.enter_context(progress(f"scoring {subject.folder}", n_items, "items"))
        cells = Evaluator(make_runner, store, process_group).score(planned, advance)
    return _SubjectCells(cells, sets, runner, process_group, catalogue, engine.label if engine else None)


def _score(
    subject: Subject,
    config: EvalMatrixConfig | SweepConfig,
    outputs: Path,
    checkpoints: Sequence[Checkpoint],
    model_digest: str,
    held_model: HeldModel,
) -> pd.DataFrame:
    """Score a subject, write its tables, show its 2x2; return the matrix."""
    from forgetbench.evaluation.representation import measure, plan_representation

    subject_cells = _collect_cells(subject, config, outputs, checkpoints, model_digest, held_model)
    process_group = subject_cells.process_group
    tables: Tables | None = None
    if process_group.is_main:
        scored = Scored(matrix_settings(config.matrix), config.manifests, outputs, subject_cells.engine)
        tables = write_tables(subject, subject_cells.cells, subject_cells.catalogue, scored)
    matrix = with_tasks(config.matrix, subject, subject_cells.catalogue)
    if matrix.representation.enabled:
        jobs = plan_representation(model_digest, checkpoints, subject_cells.sets, matrix)
        with progress(f"measuring {subject.folder}", len(jobs), "checkpoints of a set") as advance:
            measured = measure(jobs, subject_cells.runner, outputs / ".representation", process_group, advance)
        if process_group.is_main:
            write_representation(subject, measured)
    if tables is None:
        return pd.DataFrame()
    numbers = score_numbers(tables.matrix, tables.summary, read_table(subject.folder / GUARD))
    send_scores(config.tracker, subject.folder, numbers)
    return tables.matrix


def _engine_identity(config: EngineConfig, process_group: ProcessGroup) -> EngineIdentity | None:
    """The engine with its version; None for transformers in this process.

    Raises:
        UserError: the engine is not there, or several processes were started, though one would do all the work.
    """
    if config.name is Engine.transformers:
        return None
    if process_group.size > 1:
        raise UserError(
            f"engine={config.name}: one process fills a server; start the command without torchrun. vLLM takes several "
            "GPUs with engine.args={tensor_parallel_size: 8} or {data_parallel_size: 8}."
        )
    from forgetbench.serving.engines import identify

    return identify(config)
