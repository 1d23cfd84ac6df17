"""The story, top to bottom: fine-tune, score every checkpoint over the matrix, summarise a sweep."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from forgetbench.config import EvalMatrixConfig, FinetuneConfig, ModelConfig, SweepConfig
from forgetbench.data.catalogue import Catalogue
from forgetbench.errors import UserError
from forgetbench.methods.base import Method
from forgetbench.methods.operation import Operation
from forgetbench.processes import alone, join_crew, set_threads
from forgetbench.records import QUADRANTS, Metric
from forgetbench.reporting.console import console, say
from forgetbench.reporting.terminal import audit_table
from forgetbench.runfile import (
    check_same,
    describe,
    method_config,
    model_config,
    read_run,
    release,
    run_config,
    start_run,
)
from forgetbench.subject import (
    Subject,
    bare_subject,
    run_subject,
    wanted,
    with_tasks,
    write_representation,
    write_tables,
)
from forgetbench.trained import load_base, operate

if TYPE_CHECKING:
    from forgetbench.evaluation.ask import Asker
    from forgetbench.models.checkpoint import Checkpoint
    from forgetbench.models.load import LoadedModel


def finetune(config: FinetuneConfig, folder: Path) -> None:
    """Train one run to its end in `folder`, from where it stopped if it was begun.

    A method that comes after training works on the run in `folder`, which is trained plainly first if there is none.

    Raises:
        UserError: the folder holds another run, or the data or the model do not fit.
    """
    if not isinstance(config.method, Operation):
        _train(config, folder)
        return
    alone(f"method={config.method.name}")
    if config.run is None:
        _train(replace(config, method=Method()), folder)
    operate(config.method, folder, config.threads)


def _train(config: FinetuneConfig, folder: Path) -> None:
    from forgetbench.data.collate import shared_encoder
    from forgetbench.models.checkpoint import drop_resume
    from forgetbench.models.load import load_model
    from forgetbench.models.parts import audit
    from forgetbench.training.footprint import too_large
    from forgetbench.training.loop import Trainer
    from forgetbench.training.plan import plan_stages, read_sets
    from forgetbench.training.prepare import prepare
    from forgetbench.training.run import is_finished, train
    from forgetbench.training.schedule import checkpoint_steps

    config = replace(config, model=_attended(config))
    catalogue = Catalogue(config.manifests)
    stages = plan_stages(config, catalogue)
    keep = checkpoint_steps(config.recipe.checkpoints, [stage.steps for stage in stages])
    described = describe(config, stages)
    check_same(folder, described)
    if keep and is_finished(folder, keep):
        drop_resume(folder)
        say(f"{folder}: already trained ({keep[-1]} steps).")
        return
    set_threads(config.threads)
    if warning := too_large(config):
        say(warning)
    loaded = load_model(config.model, config.seed)
    if not keep:
        loaded.model.requires_grad_(False)
        start_run(folder, described, stages, loaded, audit(loaded.model), config.method)
        say(f"{folder}: nothing is trained (data.training=none).")
        return
    prepared = prepare(loaded.model, [stage.recipe or config.recipe for stage in stages], config.method, config.seed)
    run = start_run(folder, described, stages, loaded, prepared.audit, config.method)
    console.print(audit_table(run.audit))
    encoder = shared_encoder(loaded.processor, config.model.max_pixels, loaded.inputs_digest)
    read = read_sets(config.method, catalogue)
    # A copy of the method: what it keeps of this run must not stay with the configuration.
    method, carry = replace(config.method), config.data.carry_optimiser
    trainer = Trainer(loaded, encoder, method, config.recipe, config.seed, read, prepared.free, carry, config.sharding)
    try:
        train(folder, trainer, stages, keep, run.meta(), config.tracker)
    except UserError:
        release(folder)
        raise
    say(f"{folder}: trained {keep[-1]} steps; checkpoints at {', '.join(map(str, keep))}.")


def _attended(config: FinetuneConfig) -> ModelConfig:
    """The model with the attention kernel that will run: run.json tells what was used."""
    from forgetbench.models.precision import resolve_attention

    scoring = [config.matrix.precision] if isinstance(config, SweepConfig) else []
    return resolve_attention(config.model, config.recipe.precision, *scoring)


def eval_matrix(config: EvalMatrixConfig, outputs: Path) -> None:
    """Score a run's checkpoints (or the base model alone) on every dataset of the matrix.

    Raises:
        UserError: there is no such run, or the data or the model do not fit.
    """
    if config.run is not None:
        score_run(Path(config.run), config)
        return
    from forgetbench.models.checkpoint import BASE
    from forgetbench.models.load import load_model
    from forgetbench.models.precision import resolve_attention, scored_digest

    catalogue = Catalogue(config.manifests)
    set_threads(config.threads)
    model = resolve_attention(config.model, config.matrix.precision)
    loaded = load_model(model, config.seed)
    digest = scored_digest(loaded.digest, model, config.matrix.precision)
    folder = outputs / f"base-{config.model.name}-{config.data.sets[0]}"
    subject = bare_subject(folder, config.model.name, config.data, config.seed, catalogue)
    _score(subject, config, catalogue, [BASE], digest, lambda: (loaded, config.model.max_pixels))


def score_run(folder: Path, config: EvalMatrixConfig | SweepConfig) -> pd.DataFrame:
    """Score a run's checkpoints; the model is loaded only if a cell is missing.

    Returns:
        The matrix.
    """
    from forgetbench.models.checkpoint import list_checkpoints
    from forgetbench.models.precision import scored_digest

    run = read_run(folder)

    def load() -> tuple[LoadedModel, int | None]:
        import torch

        set_threads(config.threads)
        loaded = load_base(run, folder)
        torch.manual_seed(run.config["seed"])
        method_config(run).attach(loaded.model, len(run_config(run).data.targets))
        return loaded, model_config(run).max_pixels

    checkpoints = wanted(list_checkpoints(folder), config.matrix.steps, folder)
    digest = scored_digest(run.model_digest, model_config(run), config.matrix.precision)
    return _score(run_subject(folder), config, Catalogue(config.manifests), checkpoints, digest, load)


def sweep_point(config: SweepConfig, folder: Path) -> float | None:
    """Train and score one point of a sweep.

    Returns:
        The mean of the four quadrants at the last step, over its variants if the method makes some, for sweepers that
        search; None if a quadrant is missing.
    """
    finetune(config, folder)
    gc.collect()  # the trained model is in a cycle; scoring loads it anew
    matrix = score_run(folder, config)
    matrix = matrix[(matrix["variant"] != "") == isinstance(config.method, Operation)]
    last = matrix[
        (matrix["step"] == matrix["step"].max())
        & (matrix["decoding"] == config.matrix.decodings[0])
        & (matrix["metric"] == Metric.accuracy)
    ]
    means = last.groupby("quadrant")["value"].mean()
    return float(means.mean()) if set(QUADRANTS) <= set(means.index) else None


def _score(
    subject: Subject,
    config: EvalMatrixConfig | SweepConfig,
    catalogue: Catalogue,
    checkpoints: Sequence[Checkpoint],
    model_digest: str,
    load: Callable[[], tuple[LoadedModel, int | None]],
) -> pd.DataFrame:
    """Score a subject, write its tables, show its 2x2; return the matrix."""
    from forgetbench.evaluation.cells import CellStore
    from forgetbench.evaluation.evaluate import Evaluator, plan
    from forgetbench.evaluation.representation import measure, plan_representation
    from forgetbench.evaluation.sets import load_sets

    crew, outputs, matrix = join_crew(), Path(config.outputs), with_tasks(config.matrix, subject, catalogue)

    @cache
    def asker() -> Asker:
        from forgetbench.data.collate import shared_encoder
        from forgetbench.evaluation.ask import Asker

        loaded, max_pixels = load()
        encoder = shared_encoder(loaded.processor, max_pixels, loaded.inputs_digest)
        return Asker(loaded, encoder, matrix, outputs / ".cache")

    sets = load_sets(matrix, catalogue)
    works = plan(model_digest, checkpoints, sets, matrix)
    if not works:
        raise UserError("matrix.decodings: none of them applies to these datasets; open answers are decoded greedily.")
    evaluator = Evaluator(asker, CellStore(outputs), crew)
    with _progress("scoring", sum(len(work.dataset.samples) for work in works)) as advance:
        cells = evaluator.score(works, advance)
    scored = write_tables(subject, cells, catalogue).matrix if crew.is_main else pd.DataFrame()
    if matrix.representation.enabled:
        jobs = plan_representation(model_digest, checkpoints, sets, matrix)
        with _progress("measuring", len(jobs)) as advance:
            measured = measure(jobs, asker, outputs / ".representation", crew, advance)
        if crew.is_main:
            write_representation(subject, measured)
    return scored


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar over what is to be done; the current piece is named."""
    columns = (TextColumn(f"[bold]{title}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or console.quiet,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=total)
        yield lambda label, n: progress.update(task, advance=n, description=label)
