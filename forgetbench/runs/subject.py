"""What is scored, and what its tables say about every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from forgetbench.config import DataConfig, MatrixConfig, Training, stage_recipes
from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.labels import task_labels
from forgetbench.data.probe import SUFFIX
from forgetbench.data.quadrant import place
from forgetbench.data.sources import load_samples
from forgetbench.runs.run_file import read_run, run_config
from forgetbench.tables.cell_view import CellView, RowContext
from forgetbench.tables.continual import continual_rows
from forgetbench.tables.representation import representation_rows
from forgetbench.tables.scores import matrix_rows, score_rows, write_csv
from forgetbench.tables.summary import summary_rows
from forgetbench.terminal import matrix_table
from forgetbench.terminal.console import console, say
from forgetbench.terminal.strategies import course_table

if TYPE_CHECKING:
    from forgetbench.evaluation.evaluate import ScoredCell
    from forgetbench.evaluation.representation import Measured
    from forgetbench.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Subject:
    """A run's checkpoints, a base model alone, or predictions made elsewhere."""

    folder: Path
    """Where the tables go."""
    name: str
    model: str
    seed: int | None
    targets: Sequence[str]
    """The target set of every stage; sets that are trained jointly are joined by `+`."""
    labels: Sequence[Sequence[str]]
    """The labels that every stage trains; none where its answers are open-ended."""
    method: str = ""
    parts: str = ""
    recipes: Sequence[Mapping[str, Any]] = ()
    """Of every stage."""
    tasks: Sequence[str] = ()
    """The target sets of a sequence, also where they are trained jointly or not at all."""
    strategy: str = ""
    """What this way of continual learning is called."""
    training: Training = Training.sequence

    def views(self, scored: Sequence[ScoredCell], catalogue: Catalogue) -> list[CellView]:
        """Cells with everything that the tables say about them."""
        return [self._view(one, catalogue) for one in scored]

    def run_columns(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What every table says of a checkpoint, by column."""
        stage = int(checkpoint.meta.get("stage", 0))
        recipe = self._recipe(stage)
        mix = recipe.get("mix", {"data": [], "ratio": None})
        return {
            "run": self.name,
            "model": self.model,
            "target": self.targets[max(0, stage - 1)],
            "checkpoint": checkpoint.name,
            "variant": checkpoint.variant,
            "method": self.method,
            "parts": self.parts,
            "lr": _lr(recipe.get("lr", "")),
            "mix": "+".join(mix["data"] if mix["ratio"] else []),
            "mix_ratio": mix["ratio"],
            "seed": self.seed,
            "stage": stage,
            "step": checkpoint.step,
        }

    def _recipe(self, stage: int) -> Mapping[str, Any]:
        return self.recipes[max(0, stage - 1)] if self.recipes else {}

    def _view(self, scored: ScoredCell, catalogue: Catalogue) -> CellView:
        work, cell, manifest = scored.work, scored.cell, scored.work.dataset.manifest
        run = self.run_columns(work.checkpoint)
        also_seen = list(self.targets[: max(0, run["stage"] - 1)])
        for recipe in self.recipes[: max(1, run["stage"])]:
            mix, replay = recipe["mix"], recipe["replay"]
            also_seen += [*(mix["data"] if mix["ratio"] else ()), *(replay["earlier"] if replay["samples"] else ())]
        auxiliary = [leaf.manifest for name in also_seen for leaf in catalogue.leaves(name)]
        counts = cell.frame["options"].map(len)
        context = RowContext(
            **run,
            dataset=manifest.name,
            image_domain="+".join(manifest.image_domains),
            text_task="+".join(manifest.text_tasks),
            placement=place(catalogue.load(run["target"]), manifest, auxiliary),
            probe=manifest.probe,
            probe_of=manifest.name.removesuffix(SUFFIX) if manifest.name.endswith(SUFFIX) else "",
            decoding=work.settings.decoding,
            metric=cell.metric,
            labels=frozenset(self.labels[max(0, run["stage"] - 1)]),
            chance=float((1 / counts).mean()) if counts.all() and manifest.answer is not AnswerKind.text else None,
            seconds=cell.seconds,
            cell=cell.digest,
            settings=str(cell.frame["settings"].iloc[0]),
        )
        return CellView(cell.frame, context)


def run_subject(folder: Path) -> Subject:
    """A trained run, as its run.json describes it.

    Raises:
        UserError: the folder holds no run.
    """
    run = read_run(folder)
    config = run_config(run)
    return Subject(
        folder=folder,
        name=folder.name,
        model=config.model.name,
        seed=config.seed,
        targets=config.data.targets,
        labels=run.labels,
        method=config.method.name,
        parts=run.parts,
        recipes=[asdict(one) for one in stage_recipes(config.recipe, config.data)],
        tasks=config.data.tasks,
        training=config.data.training,
        strategy=config.strategy or config.method.name,
    )


def bare_subject(folder: Path, model: str, data: DataConfig, seed: int | None, catalogue: Catalogue) -> Subject:
    """A model that no run of ours trained; the target's labels are those of its evaluation split."""
    manifest = catalogue.load(data.sets[0])
    labels = task_labels(load_samples(manifest, manifest.eval_split)) if manifest.source and manifest.eval_split else []
    return Subject(
        folder,
        folder.name,
        model,
        seed,
        targets=data.sets[:1],
        labels=[labels],
        tasks=data.tasks,
        strategy="zero_shot",
        training=Training.none,
    )


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
    """What scores.csv and matrix.csv hold."""

    scores: pd.DataFrame
    matrix: pd.DataFrame


def write_tables(subject: Subject, cells: Sequence[ScoredCell], catalogue: Catalogue) -> Tables:
    """Write a subject's tables and show its 2x2."""
    views = subject.views(cells, catalogue)
    tables = Tables(score_rows(views), matrix_rows(views))
    write_csv(tables.scores, subject.folder / "scores.csv")
    write_csv(tables.matrix, subject.folder / "matrix.csv")
    write_csv(summary_rows(views), subject.folder / "summary.csv")
    if len(subject.tasks) > 1:
        rows = continual_rows(views, subject.tasks, subject.strategy, subject.training)
        write_csv(rows, subject.folder / "continual.csv")
        console.print(course_table(rows))
    console.print(matrix_table(tables.scores, tables.matrix))
    say(f"{subject.folder}: {len(cells)} cells; scores.csv, matrix.csv, summary.csv")
    return tables


def write_representation(subject: Subject, measured: Sequence[Measured]) -> None:
    """Write what was measured of a subject's checkpoints."""
    rows = [{**subject.run_columns(one.checkpoint), **asdict(row)} for one in measured for row in one.rows]
    write_csv(representation_rows(rows), subject.folder / "representation.csv")
    say(f"{subject.folder}: representation.csv")


def wanted(checkpoints: Sequence[Checkpoint], steps: Sequence[int], folder: Path) -> list[Checkpoint]:
    """The checkpoints at the named steps and the base; all of them if none is named."""
    if missing := set(steps) - {one.step for one in checkpoints}:
        found = ", ".join(map(str, sorted({one.step for one in checkpoints})))
        raise UserError(f"matrix.steps: {folder} has no checkpoint at {sorted(missing)}; it has {found}.")
    return [one for one in checkpoints if one.step in {0, *steps} or not steps]
