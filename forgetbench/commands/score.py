"""Score without a model: stored predictions by the present rules, and predictions that were made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forgetbench.config import Engine, MatrixConfig, ScoreConfig
from forgetbench.core.errors import UserError
from forgetbench.core.shell import argument
from forgetbench.data.catalogue import Catalogue
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.evaluate import PlannedCell, plan, stored_cells
from forgetbench.evaluation.external import external_cells
from forgetbench.evaluation.representation import plan_representation, stored_measures
from forgetbench.evaluation.sets import load_sets
from forgetbench.exchange.lm_eval import write_lm_eval
from forgetbench.models.precision import scored_digest
from forgetbench.runs.address import resolve
from forgetbench.runs.run import Run
from forgetbench.runs.scored import FILE, LAST, Scored, matrix_settings, recall
from forgetbench.runs.stored import lost_checkpoints, outputs_of, read_table
from forgetbench.runs.subject import (
    REPRESENTATION,
    Tables,
    bare_subject,
    run_subject,
    with_tasks,
    write_representation,
    write_tables,
)
from forgetbench.tables.guard import GUARD
from forgetbench.tables.tracked import score_numbers
from forgetbench.terminal.console import say
from forgetbench.training.tracking import send_scores

_NAMED = 10
"""Missing cells that a message names."""


def score(config: ScoreConfig, outputs: Path) -> None:
    """Make the tables again from stored predictions, or from predictions made elsewhere; no model is loaded.

    Raises:
        UserError: there are no such predictions, some of them are missing, or they do not fit the data.
    """
    tables, folder = _score_run(config.run, config) if config.run else _score_external(config, outputs)
    numbers = score_numbers(tables.matrix, tables.summary, read_table(folder / GUARD))
    send_scores(config.tracker, folder, numbers)
    if config.lm_eval:
        write_lm_eval(tables.scores, folder)
        say(f"{folder}/lm_eval: results in lm-evaluation-harness's layout")


def _score_run(address: str, config: ScoreConfig) -> tuple[Tables, Path]:
    run, catalogue = resolve(address).whole().run(), Catalogue(config.manifests)
    checkpoints, subject = run.checkpoints(config.matrix.steps), run_subject(run)
    outputs, matrix = outputs_of(run, Path(config.outputs)), with_tasks(config.matrix, subject, catalogue)
    _check_checkpoints(run, config.partial)
    last_scored = recall(run.folder)
    engine = config.engine_name or (last_scored.engine if last_scored else None)
    engine = None if engine == Engine.transformers else engine
    scored = Scored(matrix_settings(config.matrix), config.manifests, outputs, engine)
    if last_scored is None:
        say(
            f"{run.folder} does not tell how it was scored (no {FILE}): it is scored by the matrix of this command, "
            f"{_described(config.matrix)}, from the cells in {outputs}."
        )
    digest = scored_digest(run.model_digest, run.model, matrix.precision)
    sets = load_sets(matrix, catalogue)
    planned = plan(digest, checkpoints, sets, matrix, engine)
    cells = stored_cells(planned, CellStore(outputs, matrix.reasoning.marks))
    stored_digests = {cell.work.digest for cell in cells}
    is_same = last_scored is not None and (last_scored.matrix, last_scored.engine) == (scored.matrix, engine)
    if missing := [work for work in planned if work.digest not in stored_digests]:
        names = _named(missing)
        if not (config.partial and cells):
            last_option, same_matrix = (f" matrix={LAST}", "") if is_same else ("", " with the same matrix")
            raise UserError(
                f"{run.folder}: {len(missing)} of {len(planned)} cells are not in {outputs}, so its tables stay as "
                f"they are:\n{names}\n"
                f"`forgetbench eval-matrix {argument('run', run.folder)}{last_option}`{same_matrix} makes them; "
                "--partial makes the tables without them. (Items, weights, matrix.batch_size and "
                ".precision are part of a cell.)"
            )
        say(f"{run.folder}: without {len(missing)} of {len(planned)} cells, which are not in {outputs}:\n{names}")
    jobs = plan_representation(digest, checkpoints, sets, matrix) if matrix.representation.enabled else []
    measured = stored_measures(jobs, outputs / ".representation")
    is_whole = len(measured) == len(jobs)
    tables = write_tables(subject, cells, catalogue, scored, [REPRESENTATION] if is_same and not is_whole else [])
    if jobs and is_whole:
        write_representation(subject, measured)
    return tables, run.folder


def _check_checkpoints(run: Run, partial: bool) -> None:
    """Refuse to drop the rows of checkpoints that are gone, unless they may go."""
    message = lost_checkpoints(run)
    if message and not partial:
        raise UserError(f"{message}; they stay as they are. Restore it, or leave these rows out with --partial.")
    if message:
        say(f"{message}; these rows are left out.")


def _score_external(config: ScoreConfig, outputs: Path) -> tuple[Tables, Path]:
    assert config.predictions is not None
    catalogue, folder = Catalogue(config.manifests), outputs / config.name
    if (folder / "run.json").is_file():
        raise UserError(f"name: {folder} holds a run of its own; give these predictions another name.")
    subject = bare_subject(folder, config.model_name, config.data, None, catalogue)
    store = CellStore(outputs, config.matrix.reasoning.marks)
    cells, messages = external_cells(Path(config.predictions), config.matrix, catalogue, store, config.partial)
    for line in messages:
        say(line)
    if not cells:
        raise UserError("No predictions to score: name other datasets (matrix=..., matrix.datasets=[...]) or folders.")
    scored = Scored(matrix_settings(config.matrix), config.manifests, outputs)
    return write_tables(subject, cells, catalogue, scored), folder


def _named(missing: Sequence[PlannedCell]) -> str:
    """The first of the cells that are not there, a line each, and how many others."""
    lines = [
        f"  {work.checkpoint.name}, {work.dataset.manifest.name}, {work.settings.decoding}" for work in missing[:_NAMED]
    ]
    return "\n".join([*lines, *([f"  and {len(missing) - _NAMED} more"] if len(missing) > _NAMED else [])])


def _described(matrix: MatrixConfig) -> str:
    limit = f", {matrix.limit} items each" if matrix.limit else ""
    return f"{len(matrix.datasets)} datasets by {' and '.join(matrix.decodings)}{limit}"
