"""What is wrong with a search: its space, its budget, and what it would choose by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from forgetbench.compose.checks.matrix import check_evaluation_split
from forgetbench.compose.checks.problem import Problem, at_least_1, raised_problem
from forgetbench.config import SearchConfig, SweepConfig
from forgetbench.config.result import without_result
from forgetbench.config.space import keys, read_space
from forgetbench.core.errors import UserError
from forgetbench.data.catalogue import Catalogue
from forgetbench.methods.operation import Operation

_FIXED = ("hydra", "sweep", "launcher", "data", "run")


def search_problems(
    config: SweepConfig, catalogue: Catalogue, find: Callable[[str], object] = find_spec
) -> Iterator[Problem]:
    """What is wrong with a search; nothing of a grid, unless a budget was given for it."""
    search = config.search
    if not search.space:
        for key in ("steps", "hours"):
            if getattr(search, key) is not None:
                yield Problem(f"search.{key}", "nothing is searched; choose sweep=search, or give search.space.")
        return
    if find("optuna") is None:
        yield Problem("search", "Optuna is not installed: pip install 'forgetbench[search]'.")
    yield from raised_problem("search.space", partial(_check_space, search.space))
    yield from _budget(search)
    yield from _halving(search)
    yield from _trainings(config)
    yield from _validation(config, catalogue)
    yield from _guard(config)


def _check_space(given: Mapping[str, Any]) -> None:
    """Refuse an invalid space, and keys that do not change the training of the target."""
    fixed = {*_FIXED, *without_result(SweepConfig)}
    for key in keys(read_space(given)):
        if key in fixed or key.partition(".")[0] in fixed:
            raise UserError(f"{key} makes no other training of the target; search keys of recipe, method or model.")


def _budget(search: SearchConfig) -> Iterator[Problem]:
    if search.steps is None and search.hours is None:
        yield Problem("search.steps", "no budget; give search.steps=<optimiser steps in all> or search.hours=<hours>.")
    yield from at_least_1("search.steps", search.steps)
    if search.hours is not None and not 0 < search.hours < math.inf:
        yield Problem("search.hours", f"{search.hours} is no time; give hours, such as 1.5.")


def _halving(search: SearchConfig) -> Iterator[Problem]:
    if search.generation < 2:
        yield Problem("search.generation", f"{search.generation} leaves nothing to choose from; give 2 or more.")
    if any(not 0 < share < 1 for share in search.rungs) or sorted(set(search.rungs)) != search.rungs:
        yield Problem("search.rungs", f"{search.rungs} are no ascending shares between 0 and 1, such as [0.25,0.5].")
    if not 1 < search.eta < math.inf:
        yield Problem("search.eta", f"{search.eta} stops no point; give more than 1, such as 2.")


def _trainings(config: SweepConfig) -> Iterator[Problem]:
    if len(config.data.stages) > 1:
        yield Problem("data.stages", "a search takes one target; several stages are compared by a grid.")
    elif config.data.stages and config.data.stages[0].epochs is not None:
        yield Problem("data.stages.0.epochs", "a search counts steps; give recipe.steps, or data.stages of steps.")
    if isinstance(config.method, Operation):
        yield Problem("method", f"{config.method.name} comes after training, which a search cannot stop early.")


def _validation(config: SweepConfig, catalogue: Catalogue) -> Iterator[Problem]:
    search, matrix = config.search, config.matrix
    yield from at_least_1("search.items", search.items)
    if not 0 < search.reference_loss < math.inf:
        yield Problem("search.reference_loss", f"{search.reference_loss} is no loss; give more than 0, such as 0.3.")
    for name, validation_set in search.validation.items():
        yield from raised_problem(
            f"search.validation.{name}", partial(check_evaluation_split, catalogue, validation_set)
        )
        if name not in matrix.datasets:
            yield Problem("search.validation", f"'{name}' is not scored; list it under matrix.datasets too.")
    if matrix.skip:
        yield Problem("matrix.skip", "a search keeps its validation items apart itself; leave it out.")
    unvalidated = [name for name in matrix.datasets if name not in {*search.validation, *search.validation.values()}]
    if matrix.limit is None and unvalidated:
        yield Problem(
            "matrix.limit",
            f"all items of {unvalidated[0]} are tested, so that none is left to choose by; give a limit, such as 300, "
            f"or name a set for it: search.validation={{{unvalidated[0]}: <set>}}.",
        )
    for name in config.data.targets:
        if name.partition(":")[0] not in matrix.datasets:
            yield Problem("matrix.datasets", f"lacks the target {name}, whose accuracy is the first objective.")


def _guard(config: SweepConfig) -> Iterator[Problem]:
    """A guard stops points by its own items, which must not be the items that test the points."""
    tested = {*config.matrix.datasets} - {*config.search.validation.values()}
    if config.guard.is_on and (config.guard.datasets is None or tested & {*config.guard.datasets}):
        yield Problem(
            "guard.datasets",
            "the guard of a search would stop points by items that test them; name sets that matrix.datasets does not "
            "score, such as validation sets.",
        )
