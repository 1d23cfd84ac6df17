"""`forgetbench finetune`: train one run to its end, and what is made of its checkpoints after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetbench.config import FinetuneConfig, ModelConfig, SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.files import remove_leftovers
from forgetbench.core.locks import only_command
from forgetbench.core.processes import join_process_group, require_single_process, set_threads, start_processes
from forgetbench.core.shell import argument
from forgetbench.data.catalogue import Catalogue
from forgetbench.methods.base import Method
from forgetbench.methods.operation import Operation
from forgetbench.runs.guard import Guard, ending_of, move_beyond_budget, remaining_steps
from forgetbench.runs.run import Run, check_same, read_run, release, start_run
from forgetbench.runs.scored import training_manifests
from forgetbench.terminal import audit_table
from forgetbench.terminal.console import console, say
from forgetbench.terminal.guard import ending_line

if TYPE_CHECKING:
    from forgetbench.training.plan import Stage
    from forgetbench.training.variants import OperationContext


def finetune(config: FinetuneConfig, folder: Path, share: float = 1.0) -> None:
    """Train one run to its end in `folder`, from where it stopped if it was begun.

    A method that comes after training works on the run in `folder`, which is trained plainly first if there is none.

    Args:
        config: of the run.
        folder: the run's.
        share: of its steps that are trained now; below 1, it stops there with a checkpoint and a resume point.

    Raises:
        UserError: the folder holds another run, or the data or the model do not fit.
    """
    remove_leftovers(folder, folder / "checkpoints", folder / "resume")
    if not isinstance(config.method, Operation):
        _train(config, folder, share)
        return
    require_single_process(f"method={config.method.name}")
    if config.run is None:
        _train(replace(config, method=Method()), folder)
        ending = ending_of(folder)
        if ending and not ending.step:
            say(f"{folder}: {config.method.name} has nothing to work on.")
            return
    operate(config.method, folder, config.threads, config.model.path if config.run else "")


def _train(config: FinetuneConfig, folder: Path, share: float = 1.0) -> None:
    from forgetbench.training.plan import check_pictures, plan_stages

    config = replace(config, model=_resolved_attention(config))
    catalogue = Catalogue(config.manifests)
    stages = plan_stages(config, catalogue)
    check_same(folder, config, [stage.data_digest for stage in stages])
    process_group = join_process_group()
    if process_group.broadcast(_is_trained(folder, config, stages, share)):
        with only_command(folder, process_group, waits=False):  # a kill may have left its lock
            return
    check_pictures(config, stages)
    set_threads(config.threads)
    with only_command(folder, process_group):
        if process_group.is_main:
            move_beyond_budget(folder)  # what a kill left
        process_group.broadcast("")
        # The command that was waited for may have done the same.
        if not _is_trained(folder, config, stages, share):
            _train_stages(config, folder, catalogue, stages, share)


def _kept_steps(config: FinetuneConfig, stages: Sequence[Stage], share: float) -> list[int]:
    """The steps to checkpoint, ascending, up to where training stops now."""
    from forgetbench.training.schedule import first_steps, kept_steps

    keep = kept_steps(config, [stage.steps for stage in stages])
    if not keep:
        return []
    stop = first_steps(keep[-1], share)
    return sorted({*(step for step in keep if step <= stop), stop})


def _is_trained(folder: Path, config: FinetuneConfig, stages: Sequence[Stage], share: float) -> bool:
    """Whether nothing is left to train now; if so, say it."""
    from forgetbench.models.checkpoint import drop_resume
    from forgetbench.training.run import is_finished

    keep = _kept_steps(config, stages, share)
    is_whole = bool(keep) and keep[-1] == sum(stage.steps for stage in stages)
    ending = ending_of(folder) if config.guard.is_on else None
    remaining = remaining_steps(folder, keep) if config.guard.is_on and (ending or is_whole) else keep
    if not keep or remaining is None or not is_finished(folder, remaining):
        return False
    if is_whole or ending:
        drop_resume(folder)
    say(ending_line(str(folder), ending) if ending else f"{folder}: already trained ({keep[-1]} steps).")
    return True


def _train_stages(
    config: FinetuneConfig, folder: Path, catalogue: Catalogue, stages: Sequence[Stage], share: float
) -> None:
    from forgetbench.data.collate import shared_encoder
    from forgetbench.models.copies import SharedCopy
    from forgetbench.models.load import load_model
    from forgetbench.models.parts import audit
    from forgetbench.training.fitting import drop_long_items, untrained_ends_warning
    from forgetbench.training.footprint import memory_warning
    from forgetbench.training.loop import Trainer
    from forgetbench.training.plan import read_sets
    from forgetbench.training.prepare import prepare
    from forgetbench.training.run import train
    from forgetbench.training.schedule import checkpoint_steps, guard_steps

    if warning := memory_warning(config):
        say(warning)
    loaded = load_model(config.model, config.seed)
    if not _kept_steps(config, stages, share):
        loaded.model.requires_grad_(False)
        start_run(folder, config, stages, loaded, audit(loaded.model))
        say(f"{folder}: nothing is trained (data.training=none).")
        return
    encoder = shared_encoder(loaded.processor, config.model, loaded.inputs_digest)
    stages = drop_long_items(config, catalogue, stages, encoder, loaded.model.config)
    if _is_trained(folder, config, stages, share):
        return
    if reason := untrained_ends_warning(stages, encoder, config.recipe):
        say(reason)
    guard_model = SharedCopy(loaded) if config.guard.is_on else None
    prepared = prepare(loaded.model, [stage.recipe or config.recipe for stage in stages], config.method, config.seed)
    run = start_run(folder, config, stages, loaded, prepared.audit)
    console.print(audit_table(run.audit))
    changed_names = frozenset().union(*prepared.trainable_by_stage, config.method.changed(loaded.model))
    if guard_model:
        run.attach_method(guard_model.loaded.model)
        guard_model.separate(changed_names)
    reference_sets = read_sets(config.method, catalogue)
    # A copy of the method: what it keeps of this run must not stay with the configuration.
    method, carry_optimiser = replace(config.method), config.data.carry_optimiser
    trainer = Trainer(
        loaded,
        encoder,
        method,
        config.recipe,
        config.seed,
        reference_sets,
        prepared.trainable_by_stage,
        carry_optimiser,
        config.sharding,
    )
    keep, guard = _kept_steps(config, stages, share), None
    try:
        if guard_model:
            guard_model.share(loaded.model, changed_names)
            looks = guard_steps(
                config.guard, checkpoint_steps(config.recipe.checkpoints, [stage.steps for stage in stages])
            )
            guard = Guard(run, catalogue, looks, guard_model, join_process_group())
        seconds = train(folder, trainer, stages, keep, run.meta, config.tracker, config.resume_minutes, guard)
    except UserError:
        release(folder)
        raise
    if guard:
        guard.tell_cost(seconds)
    else:
        say(f"{folder}: trained {keep[-1]} steps; checkpoints at {', '.join(map(str, keep))}.")


def _resolved_attention(config: FinetuneConfig) -> ModelConfig:
    """The model with the attention kernel that will run: run.json says what was used."""
    from forgetbench.models.precision import resolve_attention

    scoring = [config.matrix.precision] if isinstance(config, SweepConfig) else []
    return resolve_attention(config.model, config.recipe.precision, *scoring)


def operate(operation: Operation, folder: Path, threads: int | None, base: str = "") -> None:
    """Make the variants of a run's checkpoints that are not there yet.

    Args:
        operation: what to do.
        folder: the run's.
        threads: CPU threads; None leaves them to torch.
        base: where the run's base is now, if it has moved.

    Raises:
        UserError: the run has no such checkpoint, or its data or model have changed.
    """
    with only_command(folder):
        _make_variants(operation, folder, threads, base)
    say(f"{folder}: {operation.name} is done; score it with `forgetbench eval-matrix {argument('run', folder)}`.")


def _make_variants(operation: Operation, folder: Path, threads: int | None, base: str) -> None:
    from forgetbench.training.variants import has_variants, make_variants, trained_checkpoints

    chosen = trained_checkpoints(folder, operation.checkpoints)
    merged = {
        Path(merged_folder): trained_checkpoints(Path(merged_folder), ())[0] for merged_folder in operation.merges()
    }
    digests = [checkpoint.digest for checkpoint in merged.values()]
    checkpoints = [checkpoint for checkpoint in chosen if not has_variants(folder, checkpoint, operation, digests)]
    if not checkpoints:
        return
    set_threads(threads)
    run = read_run(folder)
    operation_context = _operation_context(run.with_base_at(base), operation.reads_data())
    for merged_folder in merged:
        _check_mergeable(read_run(merged_folder), run)
    deltas = [operation_context.merged_weights(checkpoint.delta()) for checkpoint in merged.values()]
    make_variants(folder, checkpoints, operation, operation_context, deltas, digests)


def _operation_context(run: Run, reads_data: bool) -> OperationContext:
    from forgetbench.data.collate import shared_encoder
    from forgetbench.models.precision import widen
    from forgetbench.training.fitting import drop_long_items
    from forgetbench.training.passes import TrainingPasses
    from forgetbench.training.plan import plan_stages
    from forgetbench.training.variants import OperationContext

    config = run.config
    catalogue = Catalogue(training_manifests(run))
    stages = plan_stages(config, catalogue) if reads_data else []
    if reads_data:
        run.check_data([stage.data_digest for stage in stages])
    accelerator = start_processes()
    loaded = run.load_base()
    widen(loaded.model.parameters())  # operations write fp32, whatever the base is held in
    encoder = shared_encoder(loaded.processor, config.model, loaded.inputs_digest)
    if reads_data:
        stages = drop_long_items(config, catalogue, stages, encoder, loaded.model.config)
    operation_context = OperationContext(loaded.model, config.method, len(config.data.targets), config.seed)
    accelerator.prepare(loaded.model)
    # Features of frozen towers would be the base's, where a checkpoint may have others.
    recipe, precision = replace(config.recipe, reuse_features=False), config.method.forward_precision()
    operation_context.passes = TrainingPasses(accelerator, loaded, encoder, recipe, config.seed, precision)
    operation_context.passes.plan(stages)
    return operation_context


def _check_mergeable(other: Run, first: Run) -> None:
    """Refuse to merge runs that differ in their base, or that have adapters."""
    if other.model_digest != first.model_digest:
        raise UserError(f"method.merge: {other.folder} was not trained from the same base as {first.folder}.")
    if other.config.method.adapted_parts() or first.config.method.adapted_parts():
        raise UserError("method.merge: runs with adapters cannot be merged with others; merge fully trained ones.")
