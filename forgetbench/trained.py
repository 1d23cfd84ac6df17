"""A trained run's model, and what is made of its checkpoints after training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetbench.data.catalogue import Catalogue
from forgetbench.errors import UserError
from forgetbench.methods.operation import Operation
from forgetbench.processes import set_threads, start_processes
from forgetbench.reporting.console import say
from forgetbench.runfile import RunFile, model_config, read_run, run_config

if TYPE_CHECKING:
    from forgetbench.models.load import LoadedModel
    from forgetbench.training.variants import Bench


def load_base(run: RunFile, folder: Path) -> LoadedModel:
    """The model that a run was trained from.

    Raises:
        UserError: its weights are not those any more.
    """
    from forgetbench.models.load import load_model

    model = model_config(run)
    loaded = load_model(model, run.config["seed"])
    if loaded.digest != run.model_digest:
        raise UserError(f"{folder}: model.path={model.path} no longer holds the weights it was trained from.")
    return loaded


def operate(operation: Operation, folder: Path, threads: int | None) -> None:
    """Make the variants of a run's checkpoints that are not there yet.

    Args:
        operation: what to do.
        folder: the run's.
        threads: CPU threads; None leaves them to torch.

    Raises:
        UserError: the run has no such checkpoint, or its data or model have changed.
    """
    from forgetbench.training.variants import chosen_steps, has_variants, make_variants

    chosen = chosen_steps(folder, operation.checkpoints)
    merged = {Path(other): chosen_steps(Path(other), ())[0] for other in operation.merges()}
    digests = [one.digest for one in merged.values()]
    checkpoints = [one for one in chosen if not has_variants(folder, one, operation, digests)]
    if checkpoints:
        set_threads(threads)
        bench = _bench(read_run(folder), folder, operation.reads_data())
        for other in merged:
            _check_mergeable(other, folder)
        others = [bench.dense(one.delta()) for one in merged.values()]
        make_variants(folder, checkpoints, operation, bench, others, digests)
    say(f"{folder}: {operation.name} is done; score it with `forgetbench eval-matrix run={folder}`.")


def _bench(run: RunFile, folder: Path, reads_data: bool) -> Bench:
    from forgetbench.data.collate import shared_encoder
    from forgetbench.models.precision import widen
    from forgetbench.training.passes import TrainingPasses
    from forgetbench.training.plan import plan_stages
    from forgetbench.training.variants import Bench

    config = run_config(run)
    stages = plan_stages(config, Catalogue(config.manifests)) if reads_data else []
    if reads_data and [stage.data_digest for stage in stages] != list(run.data_digests):
        raise UserError(f"{folder}: its training data are no longer those it was trained on.")
    accelerator = start_processes(config.recipe.batch_size // config.recipe.gradient_accumulation)
    loaded = load_base(run, folder)
    widen(loaded.model.parameters())  # operations write fp32, whatever the base is held in
    encoder = shared_encoder(loaded.processor, config.model.max_pixels, loaded.inputs_digest)
    bench = Bench(loaded.model, config.method, len(config.data.targets), config.seed)
    accelerator.prepare(loaded.model)
    # Features of frozen towers would be the base's, where a checkpoint may have others.
    recipe, precision = replace(config.recipe, reuse_features=False), config.method.forward_precision()
    bench.passes = TrainingPasses(accelerator, loaded, encoder, recipe, config.seed, precision)
    bench.passes.plan(stages)
    return bench


def _check_mergeable(folder: Path, first: Path) -> None:
    """Refuse to merge what was not trained from one base, in plain weights."""
    run, ours = read_run(folder), read_run(first)
    if run.model_digest != ours.model_digest:
        raise UserError(f"method.merge: {folder} was not trained from the same base as {first}.")
    if run_config(run).method.adapted_parts() or run_config(ours).method.adapted_parts():
        raise UserError("method.merge: runs with adapters cannot be merged with others; merge fully trained ones.")
