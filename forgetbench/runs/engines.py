"""Which engine the tables of runs come from, and the same rows by another one."""

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
    """What ran the model for a run's tables: `transformers`, or a program with its version."""
    scored = recall(run.folder)
    return (scored.engine if scored else None) or Engine.transformers.value


def check_one_engine(runs: Iterable[StoredRun], fix: str) -> None:
    """Refuse runs that were scored by different engines: a difference could be the engines'.

    Args:
        runs: that are to be held side by side.
        fix: what else can be done, as a sentence.

    Raises:
        UserError: names two of them.
    """
    found: dict[str, StoredRun] = {}
    for run in runs:
        found.setdefault(engine_of(run), run)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise UserError(
            f"{first.folder} was scored by {one}, and {second.folder} by {other}: a difference could be the engines'. "
            f"Score one of them by the other's engine (`forgetbench eval-matrix {argument('run', second.folder)} "
            f"matrix=last engine=...`). {fix}"
        )


def rows_by_engine(run: StoredRun, rows: pd.DataFrame, engine: str) -> pd.DataFrame:
    """Rows of scores.csv with the cells of another engine.

    Args:
        run: a trained run.
        rows: of its scores.csv.
        engine: `transformers`, or a program with its version.

    Raises:
        UserError: the run does not tell how it was scored, or a cell of that engine is not there.
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
        (one.checkpoint.name, one.dataset.manifest.name, one.settings.decoding.value): one.digest for one in planned
    }
    wanted = [cells.get(key, "") for key in rows[_KEY].itertuples(index=False, name=None)]
    lacking = [
        key
        for key, cell in zip(rows[_KEY].itertuples(index=False, name=None), wanted, strict=True)
        if not cell or not run.store.path(cell).exists()
    ]
    if lacking:
        checkpoint, dataset, decoding = lacking[0]
        raise UserError(
            f"{run.folder}: {len(lacking)} of {len(rows)} cells of {engine} are not there, such as {checkpoint}, "
            f"{dataset}, {decoding}. `forgetbench eval-matrix {argument('run', run.folder)} matrix=last engine=...` "
            "makes them (its name needs its version, such as 'vllm 0.32.0')."
        )
    return rows.assign(cell=wanted)
