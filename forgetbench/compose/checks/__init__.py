"""Contradictions that types cannot catch, found before anything is written; pure functions on the configs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from forgetbench.compose.checks.engine import engine_problems
from forgetbench.compose.checks.guard import guard_problems
from forgetbench.compose.checks.matrix import matrix_problems
from forgetbench.compose.checks.memory import memory_problems
from forgetbench.compose.checks.numbers import number_problems
from forgetbench.compose.checks.problem import Problem, at_least_1, duplicates, raised_problem
from forgetbench.compose.checks.processes import process_problems
from forgetbench.compose.checks.recipe import mix_problems, named_sets, recipe_problems, unadapted
from forgetbench.compose.checks.search import search_problems
from forgetbench.compose.checks.stages import changed_recipes, stage_problems
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, ScoreConfig, SweepConfig, Tracker
from forgetbench.core.errors import UserError
from forgetbench.core.options import USER_MANIFESTS
from forgetbench.data.catalogue import Catalogue
from forgetbench.methods.base import Method
from forgetbench.methods.operation import Operation
from forgetbench.methods.registry import SCHEMAS

Config = FinetuneConfig | EvalMatrixConfig | ScoreConfig


_MOST_THREADS = 4096
MAX_NAME = 200
"""Bytes of a run's name. Disks take 255, and a file that is being written has a longer name for a while."""


def problems(config: Config, catalogue: Catalogue) -> list[Problem]:
    """Everything that is wrong with a composed config; empty when it can run."""
    return list(_problems(config, catalogue))


def _problems(config: Config, catalogue: Catalogue) -> Iterator[Problem]:
    yield from _machine(config)
    yield from tracker_problems(config.tracker)
    yield from number_problems(config)
    if isinstance(config, FinetuneConfig):
        yield from _name(config.name)
    if isinstance(config, EvalMatrixConfig | ScoreConfig):
        yield from _run(config)
    if isinstance(config, ScoreConfig):
        yield from _predictions(config, catalogue)
    else:
        yield from _stages(config, catalogue)
    if isinstance(config, FinetuneConfig):
        yield from recipe_problems(config.recipe)
        yield from mix_problems(config)
        yield from stage_problems(config)
        yield from _checkpoints(config)
        yield from _method(config.method, config)
        yield from _further_sets(config, catalogue)
        yield from _operation(config)
        yield from process_problems(config)
        yield from _resume_minutes(config.resume_minutes)
        yield from guard_problems(config, catalogue)
    if isinstance(config, FinetuneConfig | EvalMatrixConfig):
        if config.run is None:  # with a run, an empty path means where its base was
            yield from _model_path(config.model.path)
        yield from memory_problems(config)
    if isinstance(config, SweepConfig | EvalMatrixConfig | ScoreConfig):
        yield from matrix_problems(config.matrix, catalogue)
    if isinstance(config, SweepConfig | EvalMatrixConfig):
        yield from engine_problems(config)
    if isinstance(config, SweepConfig):
        yield from search_problems(config, catalogue)


def _machine(config: Config) -> Iterator[Problem]:
    """What is asked of the machine and its disk."""
    if not isinstance(config, ScoreConfig) and config.threads is not None and not 1 <= config.threads <= _MOST_THREADS:
        yield Problem("threads", f"{config.threads} is not a number of threads; give 1 to {_MOST_THREADS}, or null.")
    for key in ("name", "outputs", "run"):
        if "${" in (getattr(config, key, None) or ""):
            yield Problem(key, "holds ${, which is a reference wherever a folder is named; leave it out.")
    if not config.outputs:
        yield Problem("outputs", "empty; give a folder, such as outputs=results, or outputs=. for the present one.")
    for folder in config.manifests:
        if folder not in USER_MANIFESTS and not Path(folder).is_dir():
            yield Problem("manifests", f"there is no folder '{folder}'.")


def _run(config: EvalMatrixConfig | ScoreConfig) -> Iterator[Problem]:
    if config.run == "":
        yield Problem("run", "empty; give the folder of a run, such as outputs/demo/recipe-lora.")
    elif config.run is not None and not Path(config.run).is_dir():
        inside = Path(config.outputs) / config.run
        yield Problem(
            "run",
            f"there is no folder '{config.run}'; "
            + (f"write run={inside}." if inside.is_dir() else "give the folder of a run."),
        )


def _predictions(config: ScoreConfig, catalogue: Catalogue) -> Iterator[Problem]:
    if (config.run is None) == (config.predictions is None):
        yield Problem("run", "give run=outputs/<name>, or predictions=<folder> for predictions made elsewhere.")
    if config.predictions is not None:
        yield from _name(config.name)
        if not Path(config.predictions).is_dir():
            yield Problem("predictions", f"there is no folder '{config.predictions}'.")
    for index, stage in enumerate(config.data.stages):
        yield from raised_problem(f"data.stages.{index}.set", partial(catalogue.load, stage.set))


def _name(name: str) -> Iterator[Problem]:
    if not name or name.startswith(".") or any(part in name for part in ("/", "\\", "..")):
        yield Problem(
            "name",
            f"'{name}' must be one folder's name under `outputs`: no /, \\, .. or leading dot.",
        )
    elif not name.isprintable():
        yield Problem("name", f"{name!r} has signs that do not show, such as a line break; leave them out.")
    elif (size := len(name.encode())) > MAX_NAME:
        yield Problem("name", f"{name[:20]}... has {size} bytes; give at most {MAX_NAME}, which every disk takes.")


def _stages(config: FinetuneConfig | EvalMatrixConfig, catalogue: Catalogue) -> Iterator[Problem]:
    if not config.data.stages:
        yield Problem("data.stages", "no stage, so nothing to train on; give data=<dataset>.")
    for index, stage in enumerate(config.data.stages):
        yield from raised_problem(f"data.stages.{index}.set", partial(_check_training_leaves, catalogue, stage.set))
        yield from at_least_1(f"data.stages.{index}.steps", stage.steps)
        if stage.epochs is not None and not 0 < stage.epochs < float("inf"):
            yield Problem(f"data.stages.{index}.epochs", f"{stage.epochs} passes train nothing; give more than 0.")
        if stage.epochs is not None and stage.steps is not None:
            yield Problem(f"data.stages.{index}.epochs", f"steps ({stage.steps}) are given too; keep one of the two.")


def _model_path(path: str) -> Iterator[Problem]:
    if not path.strip():
        yield Problem("model.path", "empty; give a folder or a Hub id.")


def _check_training_leaves(catalogue: Catalogue, name: str) -> None:
    for leaf in catalogue.leaves(name):
        if leaf.split == leaf.manifest.eval_split:
            raise UserError(
                f"'{name}' trains on '{leaf.split}' of {leaf.manifest.name}, which is its evaluation split."
            )


def _further_sets(config: FinetuneConfig, catalogue: Catalogue) -> Iterator[Problem]:
    """Sets that are trained on or read besides the targets."""
    sets_by_key = {
        "recipe.mix.data": named_sets(config.recipe.mix),
        "recipe.replay.earlier": config.recipe.replay.earlier,
        "method.reference": config.method.reads(),
    }
    for index, recipe in changed_recipes(config):
        sets_by_key[f"data.stages.{index}.recipe"] = [*named_sets(recipe.mix), *recipe.replay.earlier]
    for key, names in sets_by_key.items():
        for name in names:
            yield from raised_problem(key, partial(_check_training_leaves, catalogue, name))


def _checkpoints(config: FinetuneConfig) -> Iterator[Problem]:
    key, chosen = "recipe.checkpoints", config.recipe.checkpoints
    lengths = [stage.steps or config.recipe.steps for stage in config.data.stages if stage.epochs is None]
    # How long an epoch is, is known when the data are read.
    steps = sum(lengths) if len(lengths) == len(config.data.stages) else sys.maxsize
    given = {"every": chosen.every, "steps": chosen.steps, "log_spaced": chosen.log_spaced}
    given = {name: value for name, value in given.items() if value is not None and value != []}
    if len(given) > 1:
        described = " and ".join(f"{name} ({value})" for name, value in given.items())
        yield Problem(key, f"{described} are both given; keep one and set the other to null (`steps` to []).")
    yield from at_least_1(f"{key}.every", chosen.every)
    yield from at_least_1(f"{key}.log_spaced", chosen.log_spaced)
    yield from duplicates(f"{key}.steps", chosen.steps)
    if beyond := [step for step in chosen.steps if not 1 <= step <= steps]:
        yield Problem(f"{key}.steps", f"step {beyond[0]} is outside the {steps} steps of training.")
    if chosen.every is not None and chosen.every > steps > 0:
        yield Problem(f"{key}.every", f"{chosen.every} is more than the {steps} steps of training.")


def _operation(config: FinetuneConfig) -> Iterator[Problem]:
    """What does not fit together of `run` and the method."""
    if isinstance(config.method, Operation):
        for folder in config.method.merges():
            if not (Path(folder) / "run.json").is_file():
                yield Problem("method.merge", f"{folder} holds no run (no run.json); give folders of trained ones.")
    if config.run is None:
        return
    known = ", ".join(key.partition("/")[2] for key, schema in SCHEMAS.items() if issubclass(schema, Operation))
    if isinstance(config, SweepConfig):
        yield Problem("run", "a sweep trains its own runs; work on a trained one with `forgetbench finetune`.")
    elif not isinstance(config.method, Operation):
        yield Problem("run", f"method={config.method.name} acts during training; one that comes after it is {known}.")
    elif not (Path(config.run) / "run.json").is_file():
        yield Problem("run", f"{config.run} holds no run (no run.json); give the folder of a trained one.")


def _method(method: Method, config: FinetuneConfig) -> Iterator[Problem]:
    recipe, messages = config.recipe, dict(method.problems())
    if len(config.data.targets) == 1:
        messages |= method.problems_of_one_stage()
    yield from (Problem(f"method.{key}", message) for key, message in messages.items())
    yield from (Problem("method.parts", message) for message in unadapted(method, recipe.parts, "recipe.parts"))


def _resume_minutes(minutes: float) -> Iterator[Problem]:
    if not 0 <= minutes < math.inf:
        yield Problem(
            "resume_minutes", f"{minutes} is no time; give minutes, or 0 for a resume point after every step."
        )


def tracker_problems(tracker: Tracker, find: Callable[[str], object] = find_spec) -> Iterator[Problem]:
    """The tracker that was asked for cannot be imported."""
    if tracker is not Tracker.none and find(tracker.value) is None:
        yield Problem("tracker", f"{tracker} is not installed: pip install 'forgetbench[{tracker}]'.")
