"""What is scored, and what its tables say about every cell."""

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
_NOT_ALWAYS = (CONTINUAL, REPRESENTATION, BEYOND_CONTEXT, DRIFT)
"""Files that some tables have beside them."""
LM_EVAL_RESULTS = "lm_eval/*/results.json"
"""The same, of `score lm_eval=true`."""


@dataclass(frozen=True)
class Subject:
    """A run's checkpoints; or, without a run, a base model alone or predictions made elsewhere."""

    folder: Path
    """Where the tables go."""
    model: str
    """What tables call the model."""
    seed: int | None
    data: DataConfig
    """What the run was trained on; without a run, what the quadrants are relative to."""
    labels: Sequence[Sequence[str]]
    """The labels that every stage trains; none where its answers are open-ended."""
    run: Run | None = None

    @property
    def tasks(self) -> list[str]:
        """The target sets of a sequence, also where they are trained jointly or not at all."""
        return self.data.tasks

    @property
    def targets(self) -> list[str]:
        """The target set of every stage; sets that are trained jointly are joined by `+`."""
        return self.data.targets if self.run else self.data.sets[:1]

    def run_columns(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What every table says of a checkpoint, by column."""
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
        """Cells with everything that the tables say about them."""
        return [self._view(one, catalogue) for one in scored]

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
        trained = [leaf.manifest for name in self._also_trained(columns["stage"]) for leaf in catalogue.leaves(name)]
        target = catalogue.load(columns["target"])
        context = row_context(
            row,
            placement=place(target, manifest, trained, catalogue.joined(columns["target"])),
            metric=cell.metric,
            probe=manifest.probe,
            labels=frozenset(self.labels[max(0, columns["stage"] - 1)]),
        )
        return CellView(cell.frame, context)

    def _also_trained(self, stage: int) -> list[str]:
        """Sets that were trained on up to a stage beside its target: earlier targets, mixed-in and replayed ones."""
        found = list(self.targets[: max(0, stage - 1)])
        for recipe in self.run.recipes[: max(1, stage)] if self.run else ():
            found += recipe.mix.weights if recipe.mix.ratio else ()
            found += recipe.replay.earlier if recipe.replay.samples else ()
        return found


def run_subject(run: Run) -> Subject:
    """A trained run."""
    config = run.config
    return Subject(run.folder, model_label(config.model, run.model_digest), config.seed, config.data, run.labels, run)


def model_label(model: ModelConfig, digest: str) -> str:
    """What folders and tables call a model: two never share it, whatever the last part of their paths is."""
    shipped = model.path.startswith("embedded:") and model.weights is Weights.pretrained
    return model.name if shipped else f"{model.name}-{digest[:8]}"


def base_folder(outputs: Path, name: str | None, model: str, target: str) -> Path:
    """The folder of a base that is scored alone.

    Args:
        outputs: where folders are.
        name: of its own; None: after model and target.
        model: as tables call it.
        target: that quadrants are relative to.

    Raises:
        UserError: the tables of something else are there.
    """
    folder = outputs / (name or f"base-{model}-{target}")
    if (folder / FILE).is_file():
        raise UserError(f"{folder} holds a run; give the base another name=...")
    scores = read_table(folder / "scores.csv")
    for column, own in (("model", model), ("target", target)):
        others = set(scores[column]) - {own} if column in scores else ()
        if others:
            raise UserError(
                f"{folder} holds the tables of another {column}: {', '.join(map(str, others))}, not {own}. Give this "
                "base another name=..., or delete the folder."
            )
    return folder


def bare_subject(folder: Path, model: str, data: DataConfig, seed: int | None, catalogue: Catalogue) -> Subject:
    """A model that no run of ours trained; the target's labels are those of its evaluation split."""
    manifest = catalogue.load(data.sets[0])
    labels = task_labels(load_samples(manifest, manifest.eval_split)) if manifest.source and manifest.eval_split else []
    return Subject(folder, model, seed, data, [labels])


def with_tasks(matrix: MatrixConfig, subject: Subject, catalogue: Catalogue) -> MatrixConfig:
    """A matrix and, in continual learning, every task of the sequence that has an evaluation split."""
    if len(subject.tasks) < 2:
        return matrix
    tasks = [name for name in dict.fromkeys(subject.tasks) if catalogue.load(name).eval_split]
    return replace(matrix, datasets=[*matrix.datasets, *(name for name in tasks if name not in matrix.datasets)])


def _lr(lr: float | str | Mapping[str, float]) -> float | str:
    return ",".join(f"{part}={value}" for part, value in lr.items()) if isinstance(lr, Mapping) else lr


@dataclass(frozen=True)
class Tables:
    """What scores.csv, matrix.csv and summary.csv hold."""

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
    """Write a subject's tables and show its 2x2; what stood beside earlier ones and is not made again is removed.

    Args:
        subject: what is scored.
        cells: its answers.
        catalogue: where manifests are.
        scored: what the folder is to remember of it.
        kept: files from beside the earlier tables that fit the new ones, too.

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
    stale = [subject.folder / name for name in _NOT_ALWAYS if name not in (*written, *kept)]
    remove_all([*stale, *subject.folder.glob(LM_EVAL_RESULTS)], subject.folder)
    if CONTINUAL in written:
        print_result(course_table(written[CONTINUAL]))
    print_result(matrix_table(tables.scores, tables.matrix))
    _tell_beyond_context(cells)
    for line in cut_off_replies(cells):
        say(line)
    say(f"{subject.folder}: {len(cells)} cells; scores.csv, matrix.csv, summary.csv")
    return tables


def _continual(subject: Subject, views: Sequence[CellView]) -> dict[str, pd.DataFrame]:
    """continual.csv, by name; of one task there is none."""
    if len(subject.tasks) < 2:
        return {}
    strategy, training = ("zero_shot", Training.none)
    if subject.run:
        strategy, training = subject.run.strategy, subject.data.training
    return {CONTINUAL: continual_rows(views, subject.tasks, strategy, training)}


def _drift(views: Sequence[CellView]) -> dict[str, pd.DataFrame]:
    """drift.csv, by name; none where no answer on the target's items can be compared with the base's."""
    rows = drift_rows(views)
    return {DRIFT: rows} if len(rows) else {}


def _beyond_context(cells: Sequence[ScoredCell]) -> dict[str, pd.DataFrame]:
    """beyond_context.csv, by name: how many items of each cell are longer than the model's context; none if none is."""
    rows = [
        {"step": work.checkpoint.step, "dataset": work.dataset.manifest.name, "decoding": work.settings.decoding.value}
        | {"items": beyond.items, "longest_id": beyond.longest_id, "tokens": beyond.tokens, "context": beyond.context}
        for work, beyond in ((one.work, one.cell.beyond_context) for one in cells)
        if beyond
    ]
    return {BEYOND_CONTEXT: pd.DataFrame(rows)} if rows else {}


def _tell_beyond_context(cells: Sequence[ScoredCell]) -> None:
    """Say which datasets hold items that are longer than the model's context."""
    found = {one.work.dataset.manifest.name: one.cell.beyond_context for one in cells if one.cell.beyond_context}
    for name, beyond in found.items():
        items = "1 item is" if beyond.items == 1 else f"{beyond.items} items are"
        say(
            f"{name}: {items} longer than the model's context of {beyond.context} tokens, the longest "
            f"'{beyond.longest_id}' with {beyond.tokens}; what the model says of them counts, but tells its limit, not "
            f"what it forgot ({BEYOND_CONTEXT})."
        )


def write_representation(subject: Subject, measured: Sequence[MeasuredRows]) -> None:
    """Write what was measured of a subject's checkpoints."""
    rows = [{**subject.run_columns(one.checkpoint), **asdict(row)} for one in measured for row in one.rows]
    write_csv(representation_rows(rows), subject.folder / REPRESENTATION)
    say(f"{subject.folder}: {REPRESENTATION}")
