"""Sets that are trained jointly are the target: in its quadrant, in A_T, and in no family of off-target changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench.core.records import QUADRANTS
from forgetbench.runs.stored import read_table
from tests.support.answered import TASKS, answered_course


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_course(tmp_path_factory.mktemp("joint") / "outputs", "joint", training="joint")


def test_the_trained_sets_are_in_the_targets_quadrant_and_not_adjusted(run: Path) -> None:
    scores, matrix = (read_table(run / name) for name in ("scores.csv", "matrix.csv"))
    trained = scores[(scores["step"] > 0) & (scores["metric"] == "accuracy")]
    assert set(trained["dataset"]) == set(TASKS)
    assert set(trained["quadrant"]) == set(matrix["quadrant"]) == {QUADRANTS[0]}
    assert trained["p_value"].notna().all()
    assert trained["p_holm"].isna().all()
    assert set(matrix["n_datasets"]) == {len(TASKS)}


def test_the_summary_has_what_was_learnt(run: Path) -> None:
    summary, matrix = (read_table(run / name) for name in ("summary.csv", "matrix.csv"))
    (row,) = summary.to_dict("records")
    assert row["A_T"] == pytest.approx(0.9, abs=0.1)
    last = matrix[matrix["step"] > 0].iloc[0]
    assert (row["A_T"], row["target_delta"]) == pytest.approx((last["value"], last["delta"]))
    assert row["target_delta_ci_low"] > 0
