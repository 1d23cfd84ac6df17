"""The page on drift and forgetting: what it reads, and that its words follow its figures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forgetbench.tables.drift import DRIFT_COLUMNS
from forgetbench.tables.scores import write_csv
from tools.drift_result import load, number_words, page

Loss = Callable[[float, float, float], float]
"""Of the size of the steps, what the method adds, and noise."""


def runs(folder: Path, loss: Loss) -> Path:
    """Eight methods at three rates, two checkpoints each; drift is the steps' size plus what the method adds."""
    draw = np.random.default_rng(4)
    for method, lr in ((f"m{k}", lr) for k in range(8) for lr in (1e-4, 4e-4, 1.6e-3)):
        run_noise, rows = float(draw.normal()), []
        for step in (10, 20):
            size = 10 * np.log10(lr * 1e5) + step
            row = dict.fromkeys(DRIFT_COLUMNS) | {"method": method, "lr": lr, "seed": 0, "stage": 1, "step": step}
            row |= {"target": "t", "parts": "language", "kl_from_base": size + run_noise, "target_delta": 0.1}
            row |= {"loss_elsewhere": loss(size, run_noise, float(draw.normal()))}
            rows.append(row)
        write_csv(pd.DataFrame(rows), folder / f"{method}-{lr}/drift.csv")
        scored = {"run": f"{method}-{lr}", "step": 20, "variant": None, "metric": "accuracy", "dataset": "t"}
        write_csv(pd.DataFrame([scored]), folder / f"{method}-{lr}/scores.csv")
    return folder


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda size, run_noise, noise: size + run_noise, "It holds at the same rate and step, too"),
        (lambda size, run_noise, noise: size + noise, "At the same rate and step it does not hold beyond its error"),
        (lambda size, run_noise, noise: noise, "It cannot be told from no relation"),
    ],
)
def test_larger_steps_that_do_more_of_everything_are_told_as_such(loss: Loss, said: str, tmp_path: Path) -> None:
    points = load([runs(tmp_path, loss)])
    text = page(points, number_words([tmp_path]), "drift", "outputs/some")
    assert said in text
    assert "24 runs with 48 checkpoints" in text
    assert "- seed 0, rate 0.0001: all methods" in text  # of sweep=methods, which has none of these
    assert "Not measured here" in text
    assert text == page(load([tmp_path]), number_words([tmp_path]), "drift", "outputs/some")


def test_the_same_training_in_two_sweeps_counts_once(tmp_path: Path) -> None:
    runs(tmp_path / "one", lambda size, run_noise, noise: size + run_noise)
    shutil.copytree(tmp_path / "one/m0-0.0001", tmp_path / "two/again")
    assert len(load([tmp_path / "one", tmp_path / "two"])) == 48


def test_few_runs_claim_nothing(tmp_path: Path) -> None:
    runs(tmp_path, lambda size, run_noise, noise: size)
    for path in sorted(tmp_path.iterdir())[4:]:
        (path / "drift.csv").unlink()
    assert "too few runs for an interval" in page(load([tmp_path]), number_words([tmp_path]), "drift", "outputs/some")
