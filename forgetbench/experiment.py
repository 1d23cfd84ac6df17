"""The story, top to bottom: fine-tune, score every checkpoint over the matrix, summarise a sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from forgetbench.analysis.cell_view import CellView, RowContext
from forgetbench.analysis.tables import matrix_rows, score_rows, write_csv
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, MatrixConfig, ModelConfig, SweepConfig
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.quadrant import place
from forgetbench.errors import UserError
from forgetbench.methods.base import Method
from forgetbench.records import QUADRANTS
from forgetbench.reporting.console import make_console
from forgetbench.reporting.terminal import audit_table, matrix_table, sweep_table
from forgetbench.runfile import RunFile, check_same, describe, method_config, model_config, read_run, start_run

if TYPE_CHECKING:
    from forgetbench.evaluation.evaluate import ScoredCell

console = make_console()


def say(line: str) -> None:
    """One line, unwrapped: paths in it can be copied."""
    console.print(line, soft_wrap=True, markup=False)


def finetune(config: FinetuneConfig, folder: Path) -> None:
    """Train one run to its end in `folder`, from where it stopped if it was begun.

    Raises:
        UserError: the folder holds another run, or the data or the model do not fit.
    """
    from forgetbench.data.collate import Encoder
    from forgetbench.models.checkpoint import drop_resume
    from forgetbench.models.load import load_model
    from forgetbench.training.loop import Trainer
    from forgetbench.training.plan import plan_stages
    from forgetbench.training.prepare import prepare
    from forgetbench.training.run import is_finished, train
    from forgetbench.training.schedule import checkpoint_steps

    stages = plan_stages(config, Catalogue(config.manifests))
    keep = checkpoint_steps(config.recipe.checkpoints, [stage.steps for stage in stages])
    described = describe(config, stages)
    check_same(folder, described)
    if is_finished(folder, keep):
        drop_resume(folder)
        say(f"{folder}: already trained ({keep[-1]} steps).")
        return
    set_threads(config.threads)
    loaded = load_model(config.model, config.seed)
    audit = prepare(loaded.model, config.recipe, config.method, config.seed)
    run = start_run(folder, described, loaded, audit, config.method)
    console.print(audit_table(run.audit))
    encoder = Encoder(loaded.processor, config.model.max_pixels)
    trainer = Trainer(loaded, encoder, config.method, config.recipe, config.seed)
    train(folder, trainer, stages, keep, run.meta())
    say(f"{folder}: trained {keep[-1]} steps; checkpoints at {', '.join(map(str, keep))}.")


@dataclass(frozen=True)
class Subject:
    """What is scored: a run's checkpoints, or a base model alone."""

    folder: Path
    """Where the tables go."""
    name: str
    model: ModelConfig
    method: Method
    seed: int
    targets: Sequence[str]
    """The target set of every stage."""
    run: RunFile | None


def eval_matrix(config: EvalMatrixConfig, outputs: Path) -> None:
    """Score a run's checkpoints (or the base model alone) on every dataset of the matrix.

    Raises:
        UserError: there is no such run, or the data or the model do not fit.
    """
    if config.run is None:
        target = config.data.stages[0].set
        name = f"base-{config.model.name}-{target}"
        subject = Subject(outputs / name, name, config.model, Method(), config.seed, [target], None)
    else:
        subject = _run_subject(Path(config.run))
    score(subject, config.matrix, Catalogue(config.manifests), Path(config.outputs), config.threads)


def sweep_point(config: SweepConfig, folder: Path) -> float | None:
    """Train and score one point of a sweep.

    Returns:
        The mean of the four quadrants at the last step, for sweepers that search; None if one is missing.
    """
    finetune(config, folder)
    catalogue = Catalogue(config.manifests)
    matrix = score(_run_subject(folder), config.matrix, catalogue, Path(config.outputs), config.threads)
    last = matrix[(matrix["step"] == matrix["step"].max()) & (matrix["decoding"] == config.matrix.decodings[0])]
    means = last.groupby("quadrant")["value"].mean()
    return float(means.mean()) if set(QUADRANTS) <= set(means.index) else None


def summarise_sweep(folder: Path, points: Sequence[Path]) -> None:
    """Combine the tables of a sweep's scored points, and show a row for each."""
    points = sorted(point for point in points if (point / "scores.csv").is_file())
    if not points:
        return
    tables = {}
    for name in ("scores.csv", "matrix.csv"):
        tables[name] = pd.concat([pd.read_csv(point / name) for point in points], ignore_index=True)
        write_csv(tables[name], folder / name)
    decodings = sorted(set(tables["matrix.csv"]["decoding"]))
    if decodings:
        console.print(sweep_table(tables["matrix.csv"], tables["scores.csv"], decodings[0]))
    say(f"{len(points)} points: {folder}/scores.csv, {folder}/matrix.csv")


def score(
    subject: Subject, config: MatrixConfig, catalogue: Catalogue, outputs: Path, threads: int | None
) -> pd.DataFrame:
    """Score a subject, write its scores.csv and matrix.csv, show its 2x2; return the matrix."""
    import torch

    from forgetbench.data.collate import Encoder
    from forgetbench.evaluation.cells import CellStore
    from forgetbench.evaluation.evaluate import Evaluator, load_evaluation_set
    from forgetbench.models.checkpoint import list_checkpoints
    from forgetbench.models.load import load_model

    datasets = [load_evaluation_set(catalogue.load(name), config.limit) for name in config.datasets]
    checkpoints = list_checkpoints(subject.folder)
    if missing := set(config.steps) - {one.step for one in checkpoints}:
        steps = ", ".join(str(one.step) for one in checkpoints)
        raise UserError(f"matrix.steps: {subject.folder} has no checkpoint at {sorted(missing)}; it has {steps}.")
    checkpoints = [one for one in checkpoints if one.step in {0, *config.steps} or not config.steps]
    set_threads(threads)
    loaded = load_model(subject.model, subject.seed)
    if subject.run and loaded.digest != subject.run.model_digest:
        raise UserError(
            f"{subject.folder}: model.path={subject.model.path} no longer holds the weights it was trained from."
        )
    torch.manual_seed(subject.seed)
    subject.method.attach(loaded.model)
    encoder = Encoder(loaded.processor, subject.model.max_pixels)
    evaluator = Evaluator(loaded, encoder, config, CellStore(outputs))
    plan = evaluator.plan(checkpoints, datasets)
    with _progress(sum(len(work.dataset.samples) for work in plan)) as advance:
        cells = [_view(subject, loaded.name, cell, catalogue) for cell in evaluator.score(plan, advance)]
    scores, matrix = score_rows(cells), matrix_rows(cells)
    write_csv(scores, subject.folder / "scores.csv")
    write_csv(matrix, subject.folder / "matrix.csv")
    console.print(matrix_table(scores, matrix))
    say(f"{subject.folder}: {len(cells)} cells; scores.csv, matrix.csv")
    return matrix


def set_threads(threads: int | None) -> None:
    """Fix the CPU threads; the same seed gives the same bytes at the same number of threads."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _run_subject(folder: Path) -> Subject:
    run = read_run(folder)
    targets = [stage["set"] for stage in run.config["data"]["stages"]]
    return Subject(folder, folder.name, model_config(run), method_config(run), run.config["seed"], targets, run)


def _view(subject: Subject, model_name: str, scored: ScoredCell, catalogue: Catalogue) -> CellView:
    """A cell with everything that the tables say about it."""
    checkpoint, manifest = scored.checkpoint, scored.manifest
    config = subject.run.config if subject.run else {}
    recipe = config.get("recipe", {})
    mix = recipe.get("mix", {"data": [], "ratio": None})
    stage = int(checkpoint.meta.get("stage", 0))
    target = subject.targets[max(0, stage - 1)]
    mixed = mix["data"] if mix["ratio"] else []
    auxiliary = [leaf.manifest for name in mixed for leaf in catalogue.leaves(name)]
    counts = scored.cell.frame["options"].map(len)
    context = RowContext(
        run=subject.name,
        model=model_name,
        target=target,
        checkpoint=checkpoint.name,
        variant="",
        method=subject.method.name if subject.run else "",
        parts=subject.run.parts if subject.run else "",
        lr=_lr(recipe.get("lr", "")),
        mix="+".join(mixed),
        mix_ratio=mix["ratio"],
        seed=subject.seed,
        stage=stage,
        step=checkpoint.step,
        dataset=manifest.name,
        image_domain="+".join(manifest.image_domains),
        text_task="+".join(manifest.text_tasks),
        placement=place(catalogue.load(target), manifest, auxiliary),
        probe=manifest.probe,
        decoding=scored.decoding,
        chance=float((1 / counts).mean()) if counts.all() else None,
        seconds=scored.cell.seconds,
        cell=scored.cell.digest,
    )
    return CellView(scored.cell.frame, context)


def _lr(lr: float | str | Mapping[str, float]) -> float | str:
    return ",".join(f"{part}={value}" for part, value in lr.items()) if isinstance(lr, Mapping) else lr


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar over items; the current cell is named."""
    columns = (TextColumn("[bold]scoring"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), disable=not sys.stdout.isatty(), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda label, n: progress.update(task, advance=n, description=label)
