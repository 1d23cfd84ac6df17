"""What is wrong with a budget of forgetting, and with what it asks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

from forgetbench.compose.checks.matrix import check_evaluation_split
from forgetbench.compose.checks.problem import Problem, at_least_1, duplicates, raised_problem
from forgetbench.config import Engine, FinetuneConfig, SweepConfig, Training
from forgetbench.core.errors import UserError
from forgetbench.data.catalogue import Catalogue
from forgetbench.runs.guard import with_guarded_sets

_MOST = 100


def guard_problems(config: FinetuneConfig, catalogue: Catalogue) -> Iterator[Problem]:
    """What is wrong with a guard; without a guard, keys that would have no effect."""
    guard = config.guard
    if guard.max_loss is None:
        for key in ("datasets", "every"):
            if getattr(guard, key) is not None:
                yield Problem(f"guard.{key}", "given without guard.max_loss, so nothing is watched; give the points.")
        return
    if guard.max_loss < 0 or guard.max_loss >= _MOST:
        yield Problem(
            "guard.max_loss", f"{guard.max_loss:g} is no loss in points of accuracy; give 0 or more, below {_MOST}."
        )
    yield from at_least_1("guard.items", guard.items)
    yield from at_least_1("guard.batch_size", guard.batch_size)
    yield from _steps(config)
    yield from _asked(config, catalogue)
    yield from _trained(config)


def _trained(config: FinetuneConfig) -> Iterator[Problem]:
    """A budget of what is not trained, or not scored, in this process."""
    if config.run is not None:
        yield Problem("guard.max_loss", f"acts during training, and run={config.run} is trained already; leave it out.")
    elif config.data.training is Training.none and not isinstance(config, SweepConfig):
        yield Problem("guard.max_loss", "acts during training, and data.training=none trains nothing; leave it out.")
    if isinstance(config, SweepConfig) and config.engine.name is not Engine.transformers:
        yield Problem(
            "guard.max_loss",
            f"the guard asks the model that trains, and engine={config.engine.name} would score all of it again; use "
            "engine=transformers, or score afterwards with `forgetbench eval-matrix`.",
        )


def _steps(config: FinetuneConfig) -> Iterator[Problem]:
    every = config.guard.every
    yield from at_least_1("guard.every", every)
    lengths = [stage.steps or config.recipe.steps for stage in config.data.stages if stage.epochs is None]
    # How long an epoch is, is known when the data are read.
    steps = sum(lengths) if len(lengths) == len(config.data.stages) else sys.maxsize
    if every is not None and every > steps > 0:
        yield Problem("guard.every", f"{every} is more than the {steps} steps of training.")


def _asked(config: FinetuneConfig, catalogue: Catalogue) -> Iterator[Problem]:
    """Sets that cannot be asked, or that the run is to learn."""
    key, items = "guard.datasets", config.guard.items
    names = config.guard.datasets if config.guard.datasets is not None else _of_matrix(config, catalogue)
    if names is None:
        if isinstance(config, SweepConfig):
            return
        yield Problem(key, "missing; name what may not be forgotten, such as [digits_naming,fashion_knowledge].")
        return
    if not names:
        yield Problem(key, "no set, so nothing is asked; name what may not be forgotten.")
    yield from duplicates(key, names)
    for name in names:
        yield from raised_problem(key, partial(_check_dataset, catalogue, name))
        if name in config.data.tasks:
            yield Problem(key, f"'{name}' is what the run is to learn; name sets that it may forget.")
    if 0 < items < len(names):
        yield Problem("guard.items", f"{items} items for {len(names)} datasets; give at least one for each.")


def _of_matrix(config: FinetuneConfig, catalogue: Catalogue) -> list[str] | None:
    """The sets that a sweep's guard asks by itself; None where there is no matrix."""
    try:
        return with_guarded_sets(config, catalogue).guard.datasets if isinstance(config, SweepConfig) else None
    except UserError:  # a missing set, which is reported with the matrix or the target
        return None


def _check_dataset(catalogue: Catalogue, name: str) -> None:
    check_evaluation_split(catalogue, name)
    if not (metric := catalogue.load(name).metric).is_fraction:
        raise UserError(f"'{name}' is scored by {metric}, which is no share of 1: a loss has no points. Leave it out.")
