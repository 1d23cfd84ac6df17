"""Make a run of checkpoints that another trainer wrote, so that everything that works on runs works on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from forgetbench.config import (
    CheckpointConfig,
    FinetuneConfig,
    Quantisation,
    RecipeConfig,
    Schedule,
    StageConfig,
    Training,
)
from forgetbench.core.errors import UserError
from forgetbench.core.files import replacing
from forgetbench.core.locks import only_command
from forgetbench.core.processes import require_single_process, set_threads
from forgetbench.core.records import PARTS
from forgetbench.data.catalogue import Catalogue
from forgetbench.exchange.layouts import ExternalRun, read_layout, write_log
from forgetbench.exchange.other_trainers import Changed, changed, remarks
from forgetbench.methods.base import Method
from forgetbench.models.checkpoint import list_checkpoints, save_checkpoint
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.models.parts import PartCount, TrainableAudit, part_of
from forgetbench.models.precision import resolve_attention
from forgetbench.models.tensors import tensors_digest
from forgetbench.runs.run import IMPORTED, NOT_KNOWN, check_same, read_run, start_run
from forgetbench.terminal import audit_table
from forgetbench.terminal.console import console, say
from forgetbench.training.plan import Stage, plan_stages

_GIVEN_BY_USER = {"parts", "mix", "replay", "language_last_layers", "checkpoints", "reuse_features"}


def importer(folder: Path) -> Callable[[FinetuneConfig, Path], None]:
    """The task of `forgetbench import`, for one folder of checkpoints."""
    return partial(_import_run, folder)


def _import_run(source: Path, config: FinetuneConfig, folder: Path) -> None:
    """Make `folder` a run of the checkpoints in `source`; if it is one already, check that it is the same.

    Raises:
        UserError: the checkpoints do not fit the base, or `folder` holds something else.
    """
    require_single_process("import")
    _check_config(config)
    with only_command(folder):
        _import_checkpoints(source, config, folder)


def _import_checkpoints(source: Path, config: FinetuneConfig, folder: Path) -> None:
    config = replace(config, model=resolve_attention(config.model))
    is_run = (folder / "run.json").is_file()
    if not is_run and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something that is no run; give the import a name of its own (name=...).")
    external = read_layout(source)
    config, unknown = _reported_config(config, external)
    set_threads(config.threads)
    loaded = load_model(config.model, config.seed)
    changes: Iterator[tuple[int, Changed]] = _changes_from_base(loaded, config, external)
    step, last = next(changes)
    changes = chain([(step, last)], changes)
    config = replace(
        config,
        method=Method(name=last.method),
        recipe=replace(config.recipe, parts=_parts(last) or config.recipe.parts),
    )
    for remark in remarks(loaded, config.model, external.checkpoints[-1]):
        say(f"{source}: {remark}")
    stages = plan_stages(config, Catalogue(config.manifests))
    if is_run:
        _verify_import(folder, config, stages, loaded, changes)
        return
    notes = {IMPORTED: str(source), NOT_KNOWN: ", ".join(f"recipe.{name}" for name in unknown) or None}
    with replacing(folder) as temporary:
        temporary.mkdir()
        run = start_run(temporary, config, stages, loaded, _audit(loaded.model, last))
        run = replace(run, environment={**run.environment, **notes})
        run.write()
        write_log(external.log, run.parts, temporary / "train.csv")
        for step, change in changes:
            _is_imported(temporary, step, change, config.method.name)
            save_checkpoint(temporary, step, change.delta, {**run.meta, "stage": 1})
        steps = [checkpoint.step for checkpoint in list_checkpoints(temporary) if checkpoint.path]
    console.print(audit_table(run.audit))
    say(f"{folder}: imported {source}; checkpoints at {', '.join(map(str, steps))}.")


def _check_config(config: FinetuneConfig) -> None:
    if len(config.data.stages) != 1 or config.data.training is not Training.sequence:
        raise UserError("data: import one training on one target set at a time; import each stage under its own name.")
    if config.model.quantisation is not Quantisation.none:
        raise UserError(
            f"model.quantisation={config.model.quantisation}: weights are compared with those of an uncompressed base; "
            "leave it out."
        )
    if type(config.method) is not Method:
        raise UserError(f"method={config.method.name}: what the checkpoints hold says how they were trained; drop it.")


def _reported_config(config: FinetuneConfig, external: ExternalRun) -> tuple[FinetuneConfig, list[str]]:
    """The configuration with the settings that the trainer's files report, and the names of the others."""
    steps = sorted({checkpoint.step for checkpoint in external.checkpoints})
    reported = dict(_reported(external, steps[-1]))
    seed = external.count("seed", 0)
    recipe = replace(
        config.recipe,
        **({"lr": None} | reported),
        checkpoints=CheckpointConfig(steps=steps),
    )
    stage = StageConfig(set=config.data.stages[0].set)
    unknown = [field.name for field in fields(RecipeConfig) if field.name not in {*reported, *_GIVEN_BY_USER}]
    known = replace(config, recipe=recipe, data=replace(config.data, stages=[stage]))
    return known if seed is None else replace(known, seed=seed), unknown


def _reported(external: ExternalRun, steps: int) -> Iterator[tuple[str, Any]]:
    """Settings of the recipe that the trainer's log and card say."""
    yield "steps", steps
    rates = [row["learning_rate"] for row in external.log if row.get("learning_rate") is not None]
    if (rate := external.number("learning_rate")) is not None:
        yield "lr", rate
    elif rates:
        yield "lr", float(max(rates))
    if (batch := external.count("total_train_batch_size") or external.count("train_batch_size")) is not None:
        yield "batch_size", batch
    if (accumulation := external.count("gradient_accumulation_steps")) is not None:
        yield "gradient_accumulation", accumulation
    if external.settings.get("lr_scheduler_type") in set(Schedule):
        yield "schedule", Schedule(external.settings["lr_scheduler_type"])
    if (ratio := external.number("lr_scheduler_warmup_ratio")) is not None:
        yield "warmup", ratio
    elif (warmup := external.number("lr_scheduler_warmup_steps")) is not None:
        yield "warmup", warmup / steps if warmup >= 1 else warmup


def _changes_from_base(
    loaded: LoadedModel, config: FinetuneConfig, external: ExternalRun
) -> Iterator[tuple[int, Changed]]:
    """Changes from the base by step, the last step first: it shows what trained. One is in memory at a time."""
    for checkpoint in sorted(external.checkpoints, key=lambda saved: saved.step, reverse=True):
        yield checkpoint.step, changed(loaded, config.model, config.seed, checkpoint)


def _parts(last: Changed) -> list[str]:
    trained = {part_of(name) for name in last.trained}
    return [part for part in PARTS if part in trained]


def _audit(model: Any, last: Changed) -> TrainableAudit:
    """What trained: tensors that moved, or the adapter's own parameters."""
    total, trained = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        total[part_of(name)] += parameter.numel()
        if name in last.trained:
            trained[part_of(name)] += parameter.numel()
    counted: Mapping[str, int] = last.added or trained
    return TrainableAudit(
        tuple(PartCount(part, total[part], counted[part]) for part in PARTS), tuple(sorted(last.trained))
    )


def _digest(delta: Mapping[str, Tensor], method: str) -> str:
    return tensors_digest({name: value.contiguous() for name, value in delta.items()}, asdict(Method(name=method)))


def _is_imported(folder: Path, step: int, change: Changed, method: str) -> bool:
    """Whether a folder has this step with the same weights.

    Raises:
        UserError: it has the step with other weights.
    """
    digests = {
        checkpoint.step: checkpoint.digest
        for checkpoint in list_checkpoints(folder)
        if checkpoint.path and not checkpoint.variant
    }
    if step in digests and digests[step] != _digest(change.delta, method):
        raise UserError(
            f"step {step} is there twice with different weights. The final weights may be the best checkpoint's "
            "instead of the last one's (load_best_model_at_end): import the checkpoint-<step> folders from a folder of "
            "their own. If the files have changed since an earlier import, give this one another name=..."
        )
    return step in digests


def _verify_import(
    folder: Path,
    config: FinetuneConfig,
    stages: Sequence[Stage],
    loaded: LoadedModel,
    changes: Iterable[tuple[int, Changed]],
) -> None:
    """Check that a folder holds the same import already."""
    if IMPORTED not in read_run(folder).environment:
        raise UserError(f"{folder} holds a run that was trained here; give the import another name=...")
    check_same(folder, config, [stage.data_digest for stage in stages], loaded.digest)
    for step, change in changes:
        if not _is_imported(folder, step, change, config.method.name):
            raise UserError(f"{folder} lacks its checkpoint at step {step}; delete the folder and import again.")
    say(f"{folder}: already imported.")
