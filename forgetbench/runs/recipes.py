"""Runs that differ in nothing but the seed share the name of a recipe."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from forgetbench.core.errors import UserError
from forgetbench.runs.courses import strategy_names
from forgetbench.runs.stored import StoredRun
from forgetbench.tables.cell_view import CellView, matched
from forgetbench.tables.seeds import Pairs

_SEED = re.compile(r"(^|--|-|_)seed[-=_]?\d+")
_NOT_RECIPE = ("name", "seed", "outputs", "manifests", "threads", "run")


def stored_runs(path: Path) -> list[StoredRun]:
    """The run in a folder, or every point of the sweep in it, each with the name of its recipe.

    Raises:
        UserError: there is neither.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; name a run's or a sweep's, such as outputs/demo.")
    if (path / "run.json").is_file():
        return named([path])
    points = sorted(point.parent for point in path.glob("*/run.json"))
    if points:
        return named(points)
    if (path / "scores.csv").is_file():
        return named([path])
    raise UserError(f"{path} holds neither a run (run.json) nor a sweep (folders with one) nor scores.csv.")


def named(folders: Iterable[Path]) -> list[StoredRun]:
    """Runs with the names of their recipes: a run's own without its seed, unless two would share it."""
    runs = [StoredRun(folder) for folder in folders]
    kinds: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for run in runs:
        kinds[_short(run)].append((_identity(run), run.seed))
    runs = [replace(run, recipe=_short(run) if _is_one(kinds[_short(run)]) else run.name) for run in runs]
    return [replace(run, strategy=name) for run, name in zip(runs, strategy_names(runs), strict=True)]


def _is_one(kinds: Sequence[tuple[str, int | None]]) -> bool:
    """The same configuration, and every seed once."""
    return len({identity for identity, _ in kinds}) == 1 and len({seed for _, seed in kinds}) == len(kinds)


def _short(run: StoredRun) -> str:
    return run.name if run.seed is None else _SEED.sub("", run.name).strip("-_") or run.name


def _identity(run: StoredRun) -> str:
    if run.file is None:
        return run.name
    config = {key: value for key, value in run.file.config.items() if key not in _NOT_RECIPE}
    replays = any(recipe.replay.samples for recipe in run.stage_recipes)  # which items are replayed depends on the seed
    return repr((config, [] if replays else list(run.file.data_digests), run.file.model_digest))


Recipes = dict[tuple[str, str], dict[int | None, Pairs]]
"""Recipe and variant -> seed -> cells of the last checkpoint, each with its base."""


def last_pairs(runs: Sequence[StoredRun]) -> Recipes:
    """What scored runs answered at their last checkpoint, and at every variant of it, beside their base.

    Raises:
        UserError: answers are gone.
    """
    found: Recipes = defaultdict(dict)
    for run in runs:
        for variant, pairs in run_pairs(run, run.last()).items():
            found[run.recipe, variant][run.seed] = pairs
    return dict(found)


def run_pairs(run: StoredRun, rows: pd.DataFrame) -> dict[str, list[tuple[CellView, CellView]]]:
    """The cells of rows of a run's scores.csv beside their base, by variant.

    The base's own are left out, and those whose base was not asked the same.

    Raises:
        UserError: answers are gone.
    """
    bases = {_key(view): view for view in run.views(run.bases())}
    found: dict[str, list[tuple[CellView, CellView]]] = defaultdict(list)
    for view in run.views(rows):
        base = bases.get(_key(view))
        before = None if base is None or view.context.is_base else matched(base, view)
        if before is not None:
            found[view.context.variant].append((view, before))
    return dict(found)


def _key(view: CellView) -> tuple[str, str]:
    return view.context.dataset, view.context.decoding
