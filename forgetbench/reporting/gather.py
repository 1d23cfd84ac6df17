"""Gather a report's contents from folders: tables, facts of every run, flips, pictures, leaks, a recommendation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from forgetbench.core.errors import UserError
from forgetbench.core.options import manifest_files
from forgetbench.data.catalogue import Catalogue
from forgetbench.reporting.commands import import_command, training_command
from forgetbench.reporting.contents import ReportContents, ReportTables, RunFacts
from forgetbench.reporting.flips import find_flips
from forgetbench.reporting.leaks import find_leaks
from forgetbench.reporting.recommendation import recommend
from forgetbench.reporting.thumbnails import thumbnails
from forgetbench.runs.address import resolve
from forgetbench.runs.courses import STRATEGIES, TABLE, continual_table, courses, is_continual
from forgetbench.runs.engines import check_one_engine
from forgetbench.runs.guard import ending_of
from forgetbench.runs.recipes import Recipes, run_pairs
from forgetbench.runs.run import IMPORTED, TRAINED_BY
from forgetbench.runs.stored import StoredRun, read_table, train_table
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.continual import CONTINUAL_COLUMNS
from forgetbench.tables.continual_strategies import strategy_rows
from forgetbench.tables.drift import DRIFT_COLUMNS
from forgetbench.tables.guard import GUARD, GUARD_COLUMNS
from forgetbench.tables.last import last_step
from forgetbench.tables.recommendation import choose
from forgetbench.tables.scores import MATRIX_COLUMNS, SCORE_COLUMNS
from forgetbench.tables.seeds import seed_rows
from forgetbench.tables.summary import SUMMARY_COLUMNS
from forgetbench.terminal.console import say
from forgetbench.terminal.guard import ending_line
from forgetbench.terminal.wording import first_decoding


def gather(path: Path, max_flips: int, refresh_s: int | None = None) -> ReportContents:
    """Everything that the report of a run or a sweep shows.

    Answers that are gone, and pictures that cannot be read, are noted and left out; the tables are shown all the same.

    Raises:
        UserError: the folder holds no run, or a table is damaged.
    """
    runs = resolve(path).whole().runs
    scored = [run for run in runs if not run.scores.empty]
    check_one_engine(scored, "A report is of one engine.")
    catalogue = _catalogue(list(dict.fromkeys(folder for run in runs for folder in run.manifests)))
    tables = _tables(runs)  # a damaged table raises before the longer work
    answered, recipes, notes = _answers(scored, every_checkpoint=len(runs) == 1)
    strategies, strategy_notes = _strategies(path, scored)
    notes += strategy_notes
    searched = {name: read_table(path / f"{name}.csv") for name in ("search", "front")}
    tables = replace(tables, seeds=_seeds(runs, recipes), strategies=strategies, **searched)
    flips, n_flips = find_flips(answered, max_flips)
    decoding = first_decoding(tables.matrix["decoding"])
    choice = choose(recipes, decoding)
    if recipes and choice is None and strategies.empty:
        notes.append("No recommendation: the runs share no target and source sets that are scored by an accuracy.")
    pictures, flips = thumbnails(flips, catalogue)
    for note in notes:
        say(note)
    return ReportContents(
        title=path.resolve().name,
        is_sweep=len(runs) > 1,
        tables=tables,
        runs=[_facts(run) for run in runs],
        recommendation=recommend(choice, recipes, decoding) if choice else None,
        flips=flips,
        n_flips=n_flips if answered else None,
        pictures=pictures,
        leaks=find_leaks(scored, catalogue),
        command=f"forgetbench report {shlex.quote(str(path))}",
        notes=notes,
        refresh_s=refresh_s,
    )


def _answers(
    runs: Sequence[StoredRun], every_checkpoint: bool
) -> tuple[list[tuple[StoredRun, list[tuple[CellView, CellView]]]], Recipes, list[str]]:
    """The answers of each run beside the base's: all that are shown, and those of the last checkpoint by recipe."""
    answered, recipes, notes = [], Recipes(), []
    for run in runs:
        try:
            last = run_pairs(run, run.last())
            metrics = run.own_metrics()
            earlier = metrics.drop(last_step(metrics).index) if every_checkpoint else metrics.iloc[:0]
            pairs = [
                pair for by_variant in (run_pairs(run, earlier), last) for part in by_variant.values() for pair in part
            ]
        except UserError as error:
            notes.append(f"Without the answers of {run.name}, and what is made of them: {error}")
            continue
        if pairs:
            answered.append((run, pairs))
        for variant, part in last.items():
            recipes.setdefault((run.recipe, variant), {})[run.seed] = part
    return answered, recipes, notes


def _catalogue(folders: Sequence[str]) -> Catalogue:
    """The manifests in these folders; the same object, on which other caches depend, until a file changes."""
    files = manifest_files(folders).values()
    return _cached_catalogue(tuple(folders), tuple((str(file.resolve()), file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _cached_catalogue(folders: tuple[str, ...], _files: tuple[tuple[str, int], ...]) -> Catalogue:
    return Catalogue(folders)


def _seeds(runs: Sequence[StoredRun], recipes: Recipes) -> pd.DataFrame:
    """seeds.csv of these runs; empty where no recipe has two seeds."""
    seeds = seed_rows(recipes)
    seeds["replay"] = seeds["recipe"].map({run.recipe: _replay(run) for run in runs})
    return seeds if len(seeds) and int(seeds["n_seeds"].max()) > 1 else seeds.iloc[:0]


def _strategies(path: Path, runs: Sequence[StoredRun]) -> tuple[pd.DataFrame, list[str]]:
    """strategies.csv of the runs of several tasks, and why it is absent; made anew where the sweep's is out of date."""
    continual = [run for run in runs if is_continual(run)]
    if not continual:
        return pd.DataFrame(), []
    stored = path / STRATEGIES
    tables = [table for run in continual if (table := run.folder / TABLE).is_file()]
    if stored.is_file() and all(table.stat().st_mtime_ns <= stored.stat().st_mtime_ns for table in tables):
        return read_table(stored), []
    try:
        return strategy_rows(courses(continual)), []
    except UserError as error:
        return pd.DataFrame(), [f"Strategies are not compared: {error}"]


def _tables(runs: Sequence[StoredRun]) -> ReportTables:
    return ReportTables(
        scores=_joined([(run, run.scores) for run in runs], SCORE_COLUMNS),
        matrix=_joined([(run, run.matrix) for run in runs], MATRIX_COLUMNS),
        summary=_joined([(run, run.table("summary.csv")) for run in runs], SUMMARY_COLUMNS),
        representation=_joined([(run, run.table("representation.csv")) for run in runs], ("run",)),
        train=pd.concat([train_table(run) for run in runs], ignore_index=True),
        seeds=pd.DataFrame(),
        continual=_joined([(run, continual_table(run)) for run in runs], CONTINUAL_COLUMNS),
        guard=_joined([(run, run.table(GUARD)) for run in runs], GUARD_COLUMNS),
        drift=_joined([(run, run.table("drift.csv")) for run in runs], DRIFT_COLUMNS),
    )


def _joined(tables: Sequence[tuple[StoredRun, pd.DataFrame]], columns: Sequence[str]) -> pd.DataFrame:
    """Tables end to end, each with the name of its recipe."""
    named = [frame.assign(recipe=run.recipe, replay=_replay(run)) for run, frame in tables if not frame.empty]
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame(columns=[*columns, "recipe", "replay"])


def _replay(run: StoredRun) -> int:
    """The most of any stage."""
    return max((recipe.replay.samples for recipe in run.recipes), default=0)


def _train_seconds(run: StoredRun, train: pd.DataFrame) -> float | None:
    """Seconds of training, from the speed measured at each step; None without measurements."""
    if "samples_per_s" not in train or not run.recipes:
        return None
    measured = train.dropna(subset=["samples_per_s"])
    if measured.empty:
        return None
    instances = measured["stage"].map({stage: recipe.batch_size for stage, recipe in enumerate(run.recipes, start=1)})
    return float((instances / measured["samples_per_s"]).sum())


def _facts(run: StoredRun) -> RunFacts:
    config: Any = run.run.settings if run.run else {}
    train, ended = read_table(run.folder / "train.csv"), ending_of(run.folder)
    seconds = run.scores.drop_duplicates("cell")["seconds"] if "cell" in run.scores else pd.Series(dtype=float)
    speeds = train["samples_per_s"].dropna() if "samples_per_s" in train else pd.Series(dtype=float)
    return RunFacts(
        name=run.name,
        recipe=run.recipe,
        command=_command(run, config) if config else "",
        config=yaml.safe_dump(dict(config), sort_keys=True, allow_unicode=True) if config else "",
        environment=run.run.environment if run.run else {},
        audit=run.run.audit if run.run else {},
        train_seconds=_train_seconds(run, train),
        samples_per_s=float(speeds.median()) if len(speeds) else None,
        peak_memory_mb=float(train["peak_memory_mb"].max()) if "peak_memory_mb" in train and len(train) else None,
        eval_seconds=float(seconds.sum()) if seconds.notna().any() else None,
        guard=ending_line(run.name, ended) if ended else "",
    )


def _command(run: StoredRun, config: Any) -> str:
    environment = run.run.environment if run.run else {}
    if TRAINED_BY in environment:
        return str(environment[TRAINED_BY])
    origin = environment.get(IMPORTED)
    return import_command(run.name, str(origin), config) if origin else training_command(run.name, config)
