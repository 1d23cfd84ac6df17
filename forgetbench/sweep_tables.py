"""The tables of a sweep: those of its points end to end, and what several seeds or strategies say together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from forgetbench.analysis.continual_strategies import strategy_rows
from forgetbench.analysis.representation_table import joined_representation
from forgetbench.analysis.seed_table import seed_rows
from forgetbench.analysis.tables import write_csv
from forgetbench.reporting.console import console, say
from forgetbench.reporting.terminal import sweep_table
from forgetbench.reporting.terminal.strategies import strategy_table
from forgetbench.stored.courses import STRATEGIES, courses
from forgetbench.stored.recipes import last_pairs, named


def summarise_sweep(folder: Path, points: Sequence[Path]) -> None:
    """Combine the tables of a sweep's scored points, and show a row for each."""
    points = sorted(point for point in points if (point / "summary.csv").is_file())
    if not points:
        return
    tables = {}
    for name in ("scores.csv", "matrix.csv", "summary.csv"):
        tables[name] = pd.concat([pd.read_csv(point / name) for point in points], ignore_index=True)
        write_csv(tables[name], folder / name)
    measured = [path for point in points if (path := point / "representation.csv").is_file()]
    if measured:
        write_csv(joined_representation(measured), folder / "representation.csv")
    runs = named(points)
    if len({run.recipe for run in runs}) < len(runs):
        write_csv(seed_rows(last_pairs(runs)), folder / "seeds.csv")
    if sequences := courses(runs):
        strategies = strategy_rows(sequences)
        write_csv(strategies, folder / STRATEGIES)
        console.print(strategy_table(strategies))
    decodings = sorted(set(tables["matrix.csv"]["decoding"]))
    if decodings:
        console.print(sweep_table(tables["matrix.csv"], tables["scores.csv"], decodings[0]))
    say(f"{len(points)} points: {folder}/scores.csv, {folder}/matrix.csv, {folder}/summary.csv")
