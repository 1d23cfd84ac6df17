"""The subject of scoring, a run or a bare model, and the metadata columns of its tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from forgetbench.config import DataConfig, MatrixConfig, ModelConfig, Training, Weights
from forgetbench.core.errors import UserError
from forgetbench.core.files import remove_all
from forgetbench.core.records import AnswerKind
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.quadrant import place
from forgetbench.data.sources import load_samples, task_labels
from forgetbench.runs.cut_off import cut_off_replies
from forgetbench.runs.run import FILE, Run
from forgetbench.runs.scored import Scored, remember
from forgetbench.runs.stored import read_table
from forgetbench.tables.cell_view import CellView, row_context
from forgetbench.tables.continual import continual_rows
from forgetbench.tables.drift import drift_rows
from forgetbench.tables.representation import representation_rows
from forgetbench.tables.scores import matrix_rows, score_rows, write_csv
from forgetbench.tables.summary import summary_rows
from forgetbench.terminal import matrix_table
from forgetbench.terminal.console import print_result, say
from forgetbench.terminal.strategies import course_table

if TYPE_CHECKING:
    from forgetbench.evaluation.evaluate import ScoredCell
    from forgetbench.evaluation.representation import MeasuredRows
    from forgetbench.models.checkpoint import Checkpoint

CONTINUAL, REPRESENTATION, BEYOND_CONTEXT = "continual.csv", "representation.csv", "beyond_context.csv"
DRIFT = "drift.csv"
_OPTIONAL_TABLES = (CONTINUAL, REPRESENTATION, BEYOND_CONTEXT, DRIFT)
"""Tables that are written only in some cases."""
LM_EVAL_RESULTS = "lm_eval/*/results.json"
"""Files written by `score lm_eval=true`."""


@dataclass(frozen=True)
class Subject:
    """The subject of scoring: a run's checkpoints or, without a run, a base model or predictions of another program."""

    folder: Path
    """Folder of the tables."""
    model: str
    """Name of the model in tables."""
    seed: int | None
    data: DataConfig
    """The run's training data; without a run, the target that quadrants are relative to."""
    labels: Sequence[Sequence[str]]
    """The labels that each stage trains; empty if its answers are open-ended."""
    run: Run | None = None

    @property
    def tasks(self) -> list[str]:
        """The target datasets of a sequence, whether trained one after another, jointly or not at all."""
        return self.data.tasks

    @property
    def targets(self) -> list[str]:
        """The target dataset of every stage; jointly trained datasets are joined by `+`."""
        return self.data.targets if self.run else self.data.sets[:1]

    def run_columns(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The columns of a checkpoint that all tables have."""
        stage = int(checkpoint.meta.get("stage", 0))
        recipe = self.run.recipes[max(0, stage - 1)] if self.run else None
        mixed = recipe is not None and bool(recipe.mix.ratio)
        return {
            "run": self.folder.resolve().name,
            "model": self.model,
            "target": self.targets[max(0, stage - 1)],
            "checkpoint": checkpoint.name,
            "variant": checkpoint.variant,
            "method": self.run.config.method.name if self.run else "",
            "parts": self.run.parts if self.run else "",
            "lr": _lr(recipe.lr) if recipe else "",
            "mix": recipe.mix.label if recipe and mixed else "",
            "mix_ratio": recipe.mix.ratio if recipe else None,
            "seed": self.seed,
            "stage": stage,
            "step": checkpoint.step,
        }

    def views(self, scored: Sequence[ScoredCell], catalogue: Catalogue) -> list[CellView]:
        """The cells with their metadata columns."""
        return [self._view(cell, catalogue) for cell in scored]

    def _view(self, scored: ScoredCell, catalogue: Catalogue) -> CellView:
        work, cell, manifest = scored.work, scored.cell, scored.work.dataset.manifest
        columns = self.run_columns(work.checkpoint)
        counts = cell.frame["options"].map(len)
        row = {
            **columns,
            "dataset": manifest.name,
            "image_domain": "+".join(manifest.image_domains),
            "text_task": "+".join(manifest.text_tasks),
            "decoding": work.settings.decoding,
            "chance": float((1 / counts).mean()) if counts.all() and manifest.answer is not AnswerKind.text else None,
            "seconds": cell.seconds,
            "cell": cell.digest,
            "settings": str(cell.frame["settings"].iloc[0]),
        }
        trained = [
            leaf.manifest for name in self._auxiliary_datasets(columns["stage"]) for leaf in catalogue.leaves(name)
        ]
        target = catalogue.load(columns["target"])
        context = row_context(
            row,
            placement=place(target, manifest, trained, catalogue.joined(columns["target"])),
            metric=cell.metric,
            probe=manifest.probe,
            labels=frozenset(self.labels[max(0, columns["stage"] - 1)]),
        )
        return CellView(cell.frame, context)

    def _auxiliary_datasets(self, stage: int) -> list[str]:
        """Datasets trained on up to a stage besides its target: earlier targets, mixed-in and replayed datasets."""
        names = list(self.targets[: max(0, stage - 1)])
        for recipe in self.run.recipes[: max(1, stage)] if self.run else ():
            names += recipe.mix.weights if recipe.mix.ratio else ()
            names += recipe.replay.earlier if recipe.replay.samples else ()
        return names


def run_subject(run: Run) -> Subject:
    """The subject of a trained run."""
    config = run.config
    return Subject(run.folder, model_label(config.model, run.model_digest), config.seed, config.data, run.labels, run)


def model_label(model: ModelConfig, digest: str) -> str:
    """Name of a model in folders and tables; unique, even if paths of models end in the same name."""
    shipped = model.path.startswith("embedded:") and model.weights is Weights.pretrained
    return model.name if shipped else f"{model.name}-{digest[:8]}"


def base_folder(outputs: Path, name: str | None, model: str, target: str) -> Path:
    """The folder of a base model that is scored without a run.

    Args:
        outputs: the folder of outputs.
        name: name of the folder; None makes it from model and target.
        model: name of the model in tables.
        target: the target that quadrants are relative to.

    Raises:
        UserError: the folder holds a run or other tables.
    """
    folder = outputs / (name or f"base-{model}-{target}")
    if (folder / FILE).is_file():
        raise UserError(f"{folder} holds a run; give the base another name=...")
    scores = read_table(folder / "scores.csv")
    for column, expected in (("model", model), ("target", target)):
        others = set(scores[column]) - {expected} if column in scores else ()
        if others:
            raise UserError(
                f"{folder} holds the tables of another {column}: {', '.join(map(str, others))}, not {expected}. Give "
                "this base another name=..., or delete the folder."
            )
    return folder


def bare_subject(folder: Path, model: str, data: DataConfig, seed: int | None, catalogue: Catalogue) -> Subject:
    """The subject of a model without a run; the target's labels are those of its evaluation split."""
    manifest = catalogue.load(data.sets[0])
    labels = task_labels(load_samples(manifest, manifest.eval_split)) if manifest.source and manifest.eval_split else []
    return Subject(folder, model, seed, data, [labels])


def with_tasks(matrix: MatrixConfig, subject: Subject, catalogue: Catalogue) -> MatrixConfig:
    """Add to a matrix, in continual learning, every task of the sequence that has an evaluation split."""
    if len(subject.tasks) < 2:
        return matrix
    tasks = [name for name in dict.fromkeys(subject.tasks) if catalogue.load(name).eval_split]
    return replace(matrix, datasets=[*matrix.datasets, *(name for name in tasks if name not in matrix.datasets)])


def _lr(lr: float | str | Mapping[str, float]) -> float | str:
    return ",".join(f"{part}={value}" for part, value in lr.items()) if isinstance(lr, Mapping) else lr


@dataclass(frozen=True)
class Tables:
    """The contents of scores.csv, matrix.csv and summary.csv."""

    scores: pd.DataFrame
    matrix: pd.DataFrame
    summary: pd.DataFrame


def write_tables(
    subject: Subject,
    cells: Sequence[ScoredCell],
    catalogue: Catalogue,
    scored: Scored | None = None,
    kept: Collection[str] = (),
) -> Tables:
    """Write a subject's tables and print its 2x2 matrix; optional tables that are not written again are removed.

    Args:
        subject: the subject of scoring.
        cells: its scored cells.
        catalogue: the manifests.
        scored: settings of the scoring, to be written to scored.json.
        kept: optional tables that are still valid and not removed.

    Raises:
        UserError: a cell and its base hold different items.
    """
    views = subject.views(cells, catalogue)
    tables = Tables(score_rows(views), matrix_rows(views), summary_rows(views))
    written = {
        "scores.csv": tables.scores,
        "matrix.csv": tables.matrix,
        "summary.csv": tables.summary,
        **_drift(views),
        **_continual(subject, views),
        **_beyond_context(cells),
    }
    if scored is not None:
        remember(subject.folder, scored)
    for name, table in written.items():
        write_csv(table, subject.folder / name)
    stale = [subject.folder / name for name in _OPTIONAL_TABLES if name not in (*written, *kept)]
    remove_all([*stale, *subject.folder.glob(LM_EVAL_RESULTS)], subject.folder)
    if CONTINUAL in written:
        print_result(course_table(written[CONTINUAL]))
    print_result(matrix_table(tables.scores, tables.matrix))
    _report_beyond_context(cells)
    for line in cut_off_replies(cells):
        say(line)
    say(f"{subject.folder}: {len(cells)} cells; scores.csv, matrix.csv, summary.csv")
    return tables


def _continual(subject: Subject, views: Sequence[CellView]) -> dict[str, pd.DataFrame]:
    """continual.csv by name; empty for a single task."""
    if len(subject.tasks) < 2:
        return {}
    strategy, training = ("zero_shot", Training.none)
    if subject.run:
        strategy, training = subject.run.strategy, subject.data.training
    return {CONTINUAL: continual_rows(views, subject.tasks, strategy, training)}


def _drift(views: Sequence[CellView]) -> dict[str, pd.DataFrame]:
    """drift.csv by name; empty if no answer on the target's items can be compared with the base's."""
    rows = drift_rows(views)
    return {DRIFT: rows} if len(rows) else {}


def _beyond_context(cells: Sequence[ScoredCell]) -> dict[str, pd.DataFrame]:
    """beyond_context.csv by name: counts of items longer than the model's context; empty if there are none."""
    rows = [
        {"step": work.checkpoint.step, "dataset": work.dataset.manifest.name, "decoding": work.settings.decoding.value}
        | {"items": beyond.items, "longest_id": beyond.longest_id, "tokens": beyond.tokens, "context": beyond.context}
        for work, beyond in ((cell.work, cell.cell.beyond_context) for cell in cells)
        if beyond
    ]
    return {BEYOND_CONTEXT: pd.DataFrame(rows)} if rows else {}


def _report_beyond_context(cells: Sequence[ScoredCell]) -> None:
    """Report datasets with items that are longer than the model's context."""
    by_dataset = {
        cell.work.dataset.manifest.name: cell.cell.beyond_context for cell in cells if cell.cell.beyond_context
    }
    for name, beyond in by_dataset.items():
        items = "1 item is" if beyond.items == 1 else f"{beyond.items} items are"
        say(
            f"{name}: {items} longer than the model's context of {beyond.context} tokens, the longest "
            f"'{beyond.longest_id}' with {beyond.tokens}; what the model says of them counts, but tells its limit, not "
            f"what it forgot ({BEYOND_CONTEXT})."
        )


def write_representation(subject: Subject, measured: Sequence[MeasuredRows]) -> None:
    """Write the representation measures of a subject's checkpoints."""
    rows = [
        {**subject.run_columns(measurement.checkpoint), **asdict(row)}
        for measurement in measured
        for row in measurement.rows
    ]
    write_csv(representation_rows(rows), subject.folder / REPRESENTATION)
    say(f"{subject.folder}: {REPRESENTATION}")
