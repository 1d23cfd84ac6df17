"""What cannot be shared by several processes as asked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from forgetbench.compose.checks.problem import Problem, raised_problem
from forgetbench.compose.checks.stages import changed_recipes
from forgetbench.config import FinetuneConfig, Sharding, SweepConfig, Training
from forgetbench.core.errors import UserError
from forgetbench.core.processes import processes_started, sharing_problem
from forgetbench.methods.operation import Operation


def process_problems(config: FinetuneConfig) -> Iterator[Problem]:
    """Micro-batches that some process gets nothing of, and what `sharding` does not go with."""
    yield from _micro_batches(config)
    if config.sharding is Sharding.none:
        return
    yield from _method(config)
    yield from _started(config)
    for index, recipe in changed_recipes(config):
        key = f"data.stages.{index}.recipe"
        for name in ("parts", "language_last_layers"):
            given, whole_run = getattr(recipe, name), getattr(config.recipe, name)
            if given != whole_run and not (name == "parts" and set(given) == set(whole_run)):
                yield Problem(
                    f"{key}.{name}",
                    f"{given} trains something else than the rest of the run ({whole_run}), and what is sliced cannot "
                    "change; use sharding=none.",
                )


def _micro_batches(config: FinetuneConfig) -> Iterator[Problem]:
    """Micro-batches of each stage, by the key that decides them; each point of a sweep trains in one process."""
    if isinstance(config, SweepConfig) or config.data.training is Training.none:
        return
    try:
        processes = processes_started()
    except UserError:  # reported when they start
        return
    changed = {} if config.data.training is Training.joint else dict(changed_recipes(config))
    recipes = {}
    for index, stage in enumerate(config.data.stages):
        stage_keys = [name for name in ("batch_size", "gradient_accumulation") if name in stage.recipe]
        key = f"data.stages.{index}.recipe.{stage_keys[0]}" if stage_keys and index in changed else "recipe.batch_size"
        recipes[key] = changed.get(index, config.recipe)
    for key, recipe in recipes.items():
        if recipe.gradient_accumulation > 0 and (
            reason := sharing_problem(recipe.batch_size // recipe.gradient_accumulation, processes)
        ):
            yield Problem(key, reason)


def _method(config: FinetuneConfig) -> Iterator[Problem]:
    if isinstance(config.method, Operation):
        yield Problem("sharding", f"method={config.method.name} works in one process; use sharding=none.")
    elif reason := config.method.against_sharding():
        yield Problem("sharding", f"method={config.method.name}: {reason}; use sharding=none.")


def _started(config: FinetuneConfig) -> Iterator[Problem]:
    """A sweep's own process trains nothing, but each of its points would train alone."""
    if isinstance(config, SweepConfig):
        yield Problem("sharding", f"each point of a sweep trains in one process, and {config.sharding} needs several.")
        return
    problems = list(raised_problem("sharding", partial(processes_started)))
    yield from problems
    if not problems and processes_started() == 1:
        yield Problem(
            "sharding",
            f"{config.sharding} needs several processes, and this is the only one: start it with "
            "torchrun --nproc_per_node N -m forgetbench, or use sharding=none.",
        )
