"""Find the inference engine behind a run's tables, and read the same rows from the cells of another engine."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from forgetbench.config import Engine
from forgetbench.core.errors import UserError
from forgetbench.core.shell import argument
from forgetbench.data.catalogue import Catalogue
from forgetbench.runs.scored import recall
from forgetbench.runs.stored import StoredRun
from forgetbench.runs.subject import run_subject, with_tasks

_KEY = ["checkpoint", "dataset", "decoding"]


def engine_of(run: StoredRun) -> str:
    """The inference engine of a run's tables: `transformers`, or a program with its version."""
    scored = recall(run.folder)
    return (scored.engine if scored else None) or Engine.transformers.value


def check_one_engine(runs: Iterable[StoredRun], fix: str) -> None:
    """Refuse to compare runs that were scored by different engines, whose results may differ.

    Args:
        runs: the runs to compare.
        fix: an alternative for the user, as a sentence.

    Raises:
        UserError: names two of the runs.
    """
    run_by_engine: dict[str, StoredRun] = {}
    for run in runs:
        run_by_engine.setdefault(engine_of(run), run)
    if len(run_by_engine) > 1:
        (first_engine, first_run), (second_engine, second_run) = list(run_by_engine.items())[:2]
        raise UserError(
            f"{first_run.folder} was scored by {first_engine}, and {second_run.folder} by {second_engine}: a "
            "difference could be the engines'. Score one of them by the other's engine (`forgetbench eval-matrix "
            f"{argument('run', second_run.folder)} matrix=last engine=...`). {fix}"
        )


def rows_by_engine(run: StoredRun, rows: pd.DataFrame, engine: str) -> pd.DataFrame:
    """Replace the cells in rows of scores.csv by those of another engine.

    Args:
        run: a trained run.
        rows: rows of its scores.csv.
        engine: `transformers`, or a program with its version.

    Raises:
        UserError: the run has no record of its scoring, or a cell of that engine does not exist.
    """
    from forgetbench.evaluation.evaluate import plan
    from forgetbench.evaluation.sets import load_sets
    from forgetbench.models.precision import scored_digest

    scored = recall(run.folder)
    if scored is None or run.run is None:
        raise UserError(
            f"{run.folder}: engines are compared on a trained run that was scored (no run.json, or no scored.json)."
        )
    catalogue = Catalogue(run.manifests)
    matrix = with_tasks(scored.config, run_subject(run.run), catalogue)
    digest = scored_digest(run.run.model_digest, run.run.model, matrix.precision)
    label = None if engine == Engine.transformers else engine
    planned = plan(digest, run.run.checkpoints(matrix.steps), load_sets(matrix, catalogue), matrix, label)
    cells = {
        (work.checkpoint.name, work.dataset.manifest.name, work.settings.decoding.value): work.digest
        for work in planned
    }
    digests = [cells.get(key, "") for key in rows[_KEY].itertuples(index=False, name=None)]
    missing = [
        key
        for key, cell in zip(rows[_KEY].itertuples(index=False, name=None), digests, strict=True)
        if not cell or not run.store.path(cell).exists()
    ]
    if missing:
        checkpoint, dataset, decoding = missing[0]
        raise UserError(
            f"{run.folder}: {len(missing)} of {len(rows)} cells of {engine} are not there, such as {checkpoint}, "
            f"{dataset}, {decoding}. `forgetbench eval-matrix {argument('run', run.folder)} matrix=last engine=...` "
            "makes them (its name needs its version, such as 'vllm 0.32.0')."
        )
    return rows.assign(cell=digests)
