"""A report of runs through several tasks: what is read, compared and said where answers are lost."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from forgetbench.reporting.gather import gather
from forgetbench.runs.courses import courses, is_continual
from forgetbench.runs.recipes import stored_runs
from forgetbench.tables.continual_strategies import strategy_rows
from forgetbench.tables.scores import write_csv
from tests.support.answered import answered_course

TASKS = ("fashion_naming", "digits_questions")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("continual") / "outputs"
    answered_course(outputs, "grid/full", "strategy=seq_full", tasks=TASKS, forgets=0.4)
    answered_course(outputs, "grid/joint", "strategy=joint", tasks=TASKS, training="joint")
    answered_course(outputs, "plain", tasks=TASKS[:1])
    return outputs


@pytest.fixture(autouse=True)
def without_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("forgetbench.reporting.gather")
    monkeypatch.setattr(module, "find_leaks", lambda *_: [])  # which reads every training picture


def test_a_sweep_has_the_scores_of_its_runs_and_strategies_side_by_side(outputs: Path) -> None:
    tables = gather(outputs / "grid", 0).tables
    assert set(tables.continual["strategy"]) == {"seq_full", "joint"}
    final = tables.strategies[tables.strategies["measure"] == "MFN"].set_index("strategy")
    assert set(final["reference"]) == {"", "seq_full"}
    run_rows = tables.continual[(tables.continual["measure"] == "MFN") & (tables.continual["run"] == "full")]
    assert final.loc["seq_full", "value"] == run_rows["value"].iloc[0]
    gap = final.loc["joint", "value"] - final.loc["seq_full", "value"]
    assert final.loc["joint", "diff"] == pytest.approx(gap)
    assert gap > 0


def test_the_drift_of_every_run_is_read_with_its_recipe(outputs: Path) -> None:
    drift = gather(outputs / "grid", 0).tables.drift
    assert set(drift["recipe"]) == {"full", "joint"}
    assert drift["kl_from_base"].notna().all()


def test_a_run_of_one_task_has_no_such_tables(outputs: Path) -> None:
    tables = gather(outputs / "plain", 0).tables
    assert tables.continual.empty
    assert tables.strategies.empty
    (run,) = stored_runs(outputs / "plain")
    assert not is_continual(run)
    assert courses([run]) == {}


def test_one_strategy_at_two_rates_is_two(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs, tmp_path / "outputs")
    grid = tmp_path / "outputs/grid"
    shutil.copytree(grid / "full", grid / "low")
    described = json.loads((grid / "low/run.json").read_text("utf-8"))
    described["config"]["recipe"]["lr"] = 1e-5
    described["config"]["data"]["stages"].reverse()  # another order is the same strategy
    (grid / "low/run.json").write_text(json.dumps(described), "utf-8")
    assert set(courses(stored_runs(grid))) == {"joint", "seq_full (lr=0.0004)", "seq_full (lr=1e-05)"}


def test_a_stored_table_is_read_while_it_is_up_to_date(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    shutil.copytree(outputs, folder)
    rows = strategy_rows(courses(stored_runs(folder / "grid")))
    write_csv(rows.assign(value=0.5), folder / "grid/strategies.csv")
    assert set(gather(folder / "grid", 0).tables.strategies["value"]) == {0.5}
    later = (folder / "grid/strategies.csv").stat().st_mtime + 10
    os.utime(folder / "grid/full/continual.csv", (later, later))
    pd.testing.assert_frame_equal(gather(folder / "grid", 0).tables.strategies, rows)


def test_training_time_and_replay_are_those_of_each_stage(tmp_path: Path) -> None:
    changed = "{set: digits_questions, steps: 10, recipe: {batch_size: 8, replay: {samples: 5}}}"
    stages = f"data.stages=[{{set: fashion_naming, steps: 10}},{changed}]"
    run = answered_course(tmp_path / "outputs", "run", stages, "recipe.batch_size=32", tasks=TASKS)
    contents = gather(run, 0)
    assert contents.runs[0].train_seconds == pytest.approx((10 * 32 + 10 * 8) / 100)  # 100 instances a second
    assert set(contents.tables.matrix["replay"]) == {5}


def test_lost_answers_are_said_and_the_scores_are_shown_all_the_same(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs / "grid", tmp_path / "outputs/grid")
    (tmp_path / "outputs/.cells").mkdir()
    contents = gather(tmp_path / "outputs/grid", 0)
    assert contents.tables.strategies.empty
    assert any(note.startswith("Strategies are not compared: ") for note in contents.notes)
    assert len(contents.tables.continual)
