"""Group runs into recipes: runs of the same recipe differ only in the seed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from forgetbench.config import FinetuneConfig
from forgetbench.config.result import deciding
from forgetbench.core.errors import UserError
from forgetbench.runs.continual import strategy_names
from forgetbench.runs.run import FILE
from forgetbench.runs.stored import StoredRun
from forgetbench.tables.cell_view import CellView, matched
from forgetbench.tables.seeds import Pairs

_SEED = re.compile(r"(^|--|-|_)seed[-=_]?\d+")


def stored_runs(path: Path) -> list[StoredRun]:
    """The run in a folder, or all points of the sweep in it, with the names of their recipes.

    Raises:
        UserError: the folder holds neither a run nor a sweep.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; name a run's or a sweep's, such as outputs/demo.")
    if (path / FILE).is_file():
        return named([path])
    points = sorted(point.parent for point in path.glob(f"*/{FILE}"))
    if points:
        return named(points)
    if (path / "scores.csv").is_file():
        return named([path])
    raise UserError(f"{path} holds neither a run (run.json) nor a sweep (folders with one) nor scores.csv.")


def named(folders: Iterable[Path]) -> list[StoredRun]:
    """Runs with the names of their recipes: the run's name without its seed, unless different runs would share it."""
    runs = [StoredRun(folder) for folder in folders]
    identities: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for run in runs:
        identities[_name_without_seed(run)].append((_identity(run), run.seed))
    runs = [
        replace(
            run, recipe=_name_without_seed(run) if _is_single_recipe(identities[_name_without_seed(run)]) else run.name
        )
        for run in runs
    ]
    return [replace(run, strategy=name) for run, name in zip(runs, strategy_names(runs), strict=True)]


def _is_single_recipe(kinds: Sequence[tuple[str, int | None]]) -> bool:
    """Whether all runs have the same configuration and different seeds."""
    return len({identity for identity, _ in kinds}) == 1 and len({seed for _, seed in kinds}) == len(kinds)


def _name_without_seed(run: StoredRun) -> str:
    return run.name if run.seed is None else _SEED.sub("", run.name).strip("-_") or run.name


def _identity(run: StoredRun) -> str:
    trained = run.run
    if trained is None:
        return run.name
    settings = deciding(FinetuneConfig, trained.settings)
    del settings["seed"]
    replays = any(recipe.replay.samples for recipe in trained.recipes)  # which items are replayed depends on the seed
    return repr((settings, [] if replays else list(trained.data_digests), trained.model_digest))


Recipes = dict[tuple[str, str], dict[int | None, Pairs]]
"""(Recipe, variant) -> seed -> cells of the last checkpoint, each with the base's cell."""


def last_pairs(runs: Sequence[StoredRun]) -> Recipes:
    """The cells of scored runs at their last checkpoint and its variants, paired with the base's cells.

    Raises:
        UserError: stored answers are missing.
    """
    recipes: Recipes = defaultdict(dict)
    for run in runs:
        for variant, pairs in run_pairs(run, run.last()).items():
            recipes[run.recipe, variant][run.seed] = pairs
    return dict(recipes)


def run_pairs(run: StoredRun, rows: pd.DataFrame) -> dict[str, list[tuple[CellView, CellView]]]:
    """The cells of rows of a run's scores.csv, paired with the base's cells, by variant.

    Cells of the base are left out, as are cells whose base was asked other items.

    Raises:
        UserError: stored answers are missing.
    """
    bases = {_key(view): view for view in run.views(run.bases())}
    by_variant: dict[str, list[tuple[CellView, CellView]]] = defaultdict(list)
    for view in run.views(rows):
        base = bases.get(_key(view))
        matched_base = None if base is None or view.context.is_base else matched(base, view)
        if matched_base is not None:
            by_variant[view.context.variant].append((view, matched_base))
    return dict(by_variant)


def _key(view: CellView) -> tuple[str, str]:
    return view.context.dataset, view.context.decoding
