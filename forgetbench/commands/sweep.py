"""`forgetbench sweep`: one point of a grid, and the tables of all of them end to end."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from forgetbench.commands.eval_matrix import score_run
from forgetbench.commands.finetune import finetune
from forgetbench.config import SweepConfig
from forgetbench.core.files import remove_all
from forgetbench.core.records import QUADRANTS, Metric
from forgetbench.data.catalogue import Catalogue
from forgetbench.methods.operation import Operation
from forgetbench.runs.continual import STRATEGIES, continual_runs
from forgetbench.runs.guard import endings, with_guarded_sets
from forgetbench.runs.recipes import last_pairs, named
from forgetbench.runs.run import read_run
from forgetbench.runs.stored import read_table
from forgetbench.runs.subject import DRIFT, REPRESENTATION
from forgetbench.tables.continual_strategies import strategy_rows
from forgetbench.tables.drift import joined_drift
from forgetbench.tables.guard import GUARD
from forgetbench.tables.last import last_step
from forgetbench.tables.representation import joined_representation
from forgetbench.tables.scores import write_csv
from forgetbench.tables.seeds import seed_rows
from forgetbench.terminal import sweep_table
from forgetbench.terminal.console import print_result, say
from forgetbench.terminal.strategies import strategy_table

_SEEDS = "seeds.csv"


def sweep_point(config: SweepConfig, folder: Path) -> float | None:
    """Train and score one point of a sweep.

    Returns:
        The mean of the four quadrants at the last step, over its variants if the method makes some, for sweepers that
        search; None if a quadrant is missing.
    """
    config = with_guarded_sets(config, Catalogue(config.manifests))
    finetune(config, folder)
    gc.collect()  # the trained model is in a cycle; scoring loads it anew
    matrix = score_run(read_run(folder), config)
    matrix = matrix[(matrix["variant"] != "") == isinstance(config.method, Operation)]
    last = last_step(matrix)
    last = last[(last["decoding"] == config.matrix.decodings[0]) & (last["metric"] == Metric.accuracy)]
    means = last.groupby("quadrant")["value"].mean()
    return float(means.mean()) if set(QUADRANTS) <= set(means.index) else None


def summarise_sweep(folder: Path, points: Sequence[Path]) -> None:
    """Combine the tables of a sweep's scored points, and show a row for each."""
    points = sorted(point for point in points if (point / "summary.csv").is_file())
    if not points:
        return
    tables = {}
    for name in ("scores.csv", "matrix.csv", "summary.csv"):
        tables[name] = pd.concat([pd.read_csv(point / name) for point in points], ignore_index=True)
        write_csv(tables[name], folder / name)
    measured, drifted, guarded = (
        [path for point in points if (path := point / name).is_file()] for name in (REPRESENTATION, DRIFT, GUARD)
    )
    runs = named(points)
    has_seeds, sequences = len({run.recipe for run in runs}) < len(runs), continual_runs(runs)
    extra_tables = {
        **({REPRESENTATION: joined_representation(measured)} if measured else {}),
        **({GUARD: pd.concat([read_table(path) for path in guarded], ignore_index=True)} if guarded else {}),
        **({DRIFT: joined_drift(drifted)} if drifted else {}),
        **({_SEEDS: seed_rows(last_pairs(runs))} if has_seeds else {}),
        **({STRATEGIES: strategy_rows(sequences)} if sequences else {}),
    }
    for name, table in extra_tables.items():
        write_csv(table, folder / name)
    remove_all(
        (folder / name for name in {REPRESENTATION, DRIFT, GUARD, _SEEDS, STRATEGIES} - extra_tables.keys()), folder
    )
    if STRATEGIES in extra_tables:
        print_result(strategy_table(extra_tables[STRATEGIES]))
    decodings = sorted(set(tables["matrix.csv"]["decoding"]))
    if decodings:
        notes = endings(points)
        print_result(sweep_table(tables["matrix.csv"], tables["scores.csv"], decodings[0], notes))
    say(f"{len(points)} points: {folder}/scores.csv, {folder}/matrix.csv, {folder}/summary.csv")
