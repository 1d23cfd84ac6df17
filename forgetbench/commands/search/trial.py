"""What is done for a point of a search, wherever it runs: train it up to a rung and measure it, or test it."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path

from forgetbench.commands.eval_matrix import run_views, score_run
from forgetbench.commands.finetune import finetune
from forgetbench.commands.search.objectives import Objectives, ObjectiveSets
from forgetbench.commands.search.study import Rung
from forgetbench.config import SweepConfig
from forgetbench.runs.run import read_run
from forgetbench.runs.stored import read_table
from forgetbench.training.schedule import first_steps


@dataclass(frozen=True)
class RungResult:
    """The result of training a point up to a rung."""

    rung: Rung
    trained: int
    """Trained steps, including those that a guard took back."""


def train_and_measure(config: SweepConfig, folder: Path, share: float, sets: ObjectiveSets) -> RungResult:
    """Train a point up to a share of its steps, and measure it there on validation items.

    Args:
        config: the point's.
        folder: the point's.
        share: of its steps.
        sets: what counts.
    """
    finetune(config, folder, share)
    gc.collect()  # the trained model is in a cycle; scoring loads it anew
    run = read_run(folder)
    stop = first_steps(total_steps(config), share)
    steps = [checkpoint.step for checkpoint in run.checkpoints() if not checkpoint.variant and checkpoint.step <= stop]
    matrix = sets.validation(config, steps[-1])
    views = run_views(run, replace(config, matrix=matrix))
    rung = Rung(steps[-1], sets.measure(views, matrix, steps[-1], tested=False))
    return RungResult(rung, trained_steps(folder))


def final_test(config: SweepConfig, folder: Path, steps: dict[str, int], sets: ObjectiveSets) -> Objectives:
    """Score a point's last checkpoint on the test's items, and write its tables.

    Args:
        config: the point's.
        folder: the point's.
        steps: of every point's last checkpoint, by folder name.
        sets: what counts.
    """
    run, step = read_run(folder), steps[folder.name]
    matrix = sets.test(config, step)
    score_run(run, replace(config, matrix=matrix))
    plain_matrix = replace(matrix, representation=replace(matrix.representation, enabled=False))
    return sets.measure(run_views(run, replace(config, matrix=plain_matrix)), plain_matrix, step, tested=True)


def total_steps(config: SweepConfig) -> int:
    """Steps of a point's whole training, which has one stage."""
    return config.data.stages[0].steps or config.recipe.steps


def trained_steps(folder: Path) -> int:
    """Steps that a run has trained, as its train.csv says; 0 without one."""
    log = read_table(folder / "train.csv")
    return int(log["step"].max()) if len(log) else 0
