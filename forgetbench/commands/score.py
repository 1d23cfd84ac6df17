"""Score without a model: stored predictions by the present rules, and predictions that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

from forgetbench.config import ScoreConfig
from forgetbench.core.errors import UserError
from forgetbench.core.shell import argument
from forgetbench.data.catalogue import Catalogue
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.evaluate import plan, stored_cells
from forgetbench.evaluation.external import external_cells
from forgetbench.evaluation.sets import load_sets
from forgetbench.exchange.lm_eval import write_lm_eval
from forgetbench.models.precision import scored_digest
from forgetbench.runs.address import resolve
from forgetbench.runs.stored import outputs_of
from forgetbench.runs.subject import bare_subject, run_subject, with_tasks, write_tables
from forgetbench.terminal.console import say


def score(config: ScoreConfig, outputs: Path) -> None:
    """Make the tables again from stored predictions, or from predictions made elsewhere; no model is loaded.

    Raises:
        UserError: there are no such predictions, or they do not fit the data.
    """
    catalogue = Catalogue(config.manifests)
    if config.run is not None:
        run = resolve(config.run).whole().run()
        checkpoints, subject = run.checkpoints(config.matrix.steps), run_subject(run)
        matrix = with_tasks(config.matrix, subject, catalogue)
        digest = scored_digest(run.model_digest, run.model, matrix.precision)
        planned = plan(digest, checkpoints, load_sets(matrix, catalogue), matrix)
        cells = stored_cells(planned, CellStore(outputs_of(run, outputs), matrix.reasoning.marks))
        if missing := len(planned) - len(cells):
            say(
                f"{missing} of {len(planned)} cells are not there at these settings (matrix.batch_size, .precision and "
                f"others count); `forgetbench eval-matrix {argument('run', run.folder)}` makes them."
            )
    else:
        assert config.predictions is not None
        if (outputs / config.name / "run.json").is_file():
            raise UserError(
                f"name: {outputs / config.name} holds a run of its own; give these predictions another name."
            )
        subject = bare_subject(outputs / config.name, config.model_name, config.data, None, catalogue)
        store = CellStore(outputs, config.matrix.reasoning.marks)
        cells, told = external_cells(Path(config.predictions), config.matrix, catalogue, store, config.partial)
        for line in told:
            say(line)
    if not cells:
        raise UserError("No predictions to score: name other datasets (matrix=..., matrix.datasets=[...]) or folders.")
    tables = write_tables(subject, cells, catalogue)
    if config.lm_eval:
        write_lm_eval(tables.scores, subject.folder)
        say(f"{subject.folder}/lm_eval: results in lm-evaluation-harness's layout")
