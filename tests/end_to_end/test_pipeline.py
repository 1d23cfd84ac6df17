"""The main job through the command line, as a user runs it; a random tiny model, a few items."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.tables.answer_drift import DRIFT

TRAIN = [
    "finetune",
    "model=tiny_random",
    "name=run",
    "threads=1",
    "recipe=lora",
    "method.dropout=0.1",
    "recipe.mix.data=[same_question]",
    "recipe.mix.ratio=0.3",
    "recipe.steps=12",
    "recipe.batch_size=4",
    "recipe.gradient_accumulation=2",
    "recipe.checkpoints.log_spaced=null",
    "recipe.checkpoints.every=3",
]
MATRIX = ["matrix.datasets=[fashion_naming,digits_naming,fashion_probe,emoji_open]", "matrix.limit=6", "threads=1"]
SCORE = ["eval-matrix", "run=outputs/run", *MATRIX]
MEASURED = ["samples_per_s", "tokens_per_s", "peak_memory_mb"]


def start(folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "forgetbench", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(folder: Path, arguments: list[str]) -> str:
    process = start(folder, arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output + errors


def kill_when(process: subprocess.Popen[str], done: Path, lines: int) -> None:
    """Kill without warning as soon as a file has so many lines."""
    while process.poll() is None and (not done.is_file() or len(done.read_text().splitlines()) < lines):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder, TRAIN)
    run(folder, SCORE)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    found = (folder / "outputs/run/checkpoints").rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


def table(folder: Path, name: str, without: list[str]) -> str:
    return pd.read_csv(folder / "outputs/run" / name, dtype=str).drop(columns=without).to_csv()


def test_a_run_killed_in_training_and_in_scoring_ends_with_the_bytes_of_an_uninterrupted_one(
    uninterrupted: Path, tmp_path: Path
) -> None:
    for lines in (2, 5, 8, 11):
        kill_when(start(tmp_path, TRAIN), tmp_path / "outputs/run/train.csv", lines + 1)
    run(tmp_path, TRAIN)
    scoring = start(tmp_path, SCORE)
    cells = tmp_path / "outputs/.cells"
    while scoring.poll() is None and (not cells.is_dir() or len(list(cells.glob("*.parquet"))) < 5):
        time.sleep(0.01)
    scoring.kill()
    scoring.communicate()
    run(tmp_path, SCORE)

    assert files(tmp_path) == files(uninterrupted)
    assert not (tmp_path / "outputs/run/resume").exists()
    assert table(tmp_path, "train.csv", MEASURED) == table(uninterrupted, "train.csv", MEASURED)
    assert table(tmp_path, "scores.csv", ["seconds"]) == table(uninterrupted, "scores.csv", ["seconds"])
    assert table(tmp_path, "matrix.csv", []) == table(uninterrupted, "matrix.csv", [])


def test_every_checkpoint_and_the_base_are_scored_on_every_dataset(uninterrupted: Path) -> None:
    scores = pd.read_csv(uninterrupted / "outputs/run/scores.csv")
    accuracy = scores[scores["metric"] == "accuracy"]
    assert sorted(accuracy["step"].unique()) == [0, 3, 6, 9, 12]
    assert (accuracy.groupby(["step", "decoding"])["dataset"].nunique().unstack() == [3, 4]).all(axis=None)
    assert set(accuracy["parts"]) == {"language"}
    assert set(accuracy.loc[accuracy["dataset"] == "digits_naming", "seen_in_mix"]) == {True}
    probe = scores[scores["dataset"] == "fashion_probe"]
    metrics = {"accuracy", "mischoice", "mischoice_of_wrong", "letter_bias", "generation_gap"}
    assert set(probe["metric"]) == metrics | set(DRIFT)
    assert probe["quadrant"].isna().all()
    choice = accuracy[accuracy["decoding"] == "choice"]
    assert set(choice["n"]) == {6}
    assert (
        choice["delta"].dropna() - (choice["value"] - choice["base_value"])[choice["delta"].notna()]
    ).abs().max() < 1e-12


def test_scoring_again_makes_nothing_and_a_deleted_or_damaged_cell_alone_is_made_again(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(uninterrupted, folder)
    cells = sorted((folder / "outputs/.cells").glob("*.parquet"))
    before = {cell: cell.stat().st_mtime_ns for cell in cells}
    scores = table(folder, "scores.csv", ["seconds"])

    run(folder, SCORE)
    assert {cell: cell.stat().st_mtime_ns for cell in cells} == before

    cells[0].unlink()
    cells[1].write_bytes(cells[1].read_bytes()[:-100])
    output = run(folder, SCORE)
    assert f"{cells[1].name} is damaged" in output
    after = {cell: cell.stat().st_mtime_ns for cell in cells}
    assert {cell for cell in cells if after[cell] != before[cell]} == {cells[0], cells[1]}
    assert table(folder, "scores.csv", ["seconds"]) == scores


def test_training_again_does_nothing_and_another_recipe_under_the_same_name_is_refused(uninterrupted: Path) -> None:
    before = files(uninterrupted)
    assert "already trained" in run(uninterrupted, TRAIN)
    other = start(uninterrupted, [*TRAIN, "recipe.lr=1e-2"])
    _, errors = other.communicate()
    assert other.returncode == 2
    assert "recipe.lr" in errors
    assert "Traceback" not in errors
    assert files(uninterrupted) == before


def test_an_operation_adds_variants_that_are_scored_beside_their_checkpoint(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(uninterrupted, folder)
    soup = ["finetune", "method=wise_ft", "method.alphas=[0.0,0.5,1.0]", "run=outputs/run", "threads=1"]
    run(folder, soup)
    made = {path: path.stat().st_mtime_ns for path in (folder / "outputs/run/checkpoints").rglob("*@*/*")}
    assert len(made) == 6
    run(folder, soup)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    run(folder, [*SCORE, "matrix.steps=[12]"])
    scores = pd.read_csv(folder / "outputs/run/scores.csv").fillna({"variant": ""})
    last = scores[(scores["step"] == 12) & (scores["metric"] == "accuracy")]
    assert set(last["variant"]) == {"", "wise_ft:0.0", "wise_ft:0.5", "wise_ft:1.0"}
    values = last.pivot_table(index=["dataset", "decoding"], columns="variant", values="value")
    base = last.drop_duplicates(["dataset", "decoding"]).set_index(["dataset", "decoding"])["base_value"]
    assert len(values)
    assert (values["wise_ft:1.0"] == base.loc[values.index]).all()
    summary = pd.read_csv(folder / "outputs/run/summary.csv").fillna({"variant": ""})
    assert set(summary["variant"]) == {"", "wise_ft:0.0", "wise_ft:0.5", "wise_ft:1.0"}
    representation = pd.read_csv(folder / "outputs/run/representation.csv").fillna({"variant": ""})
    ends = representation[(representation["variant"] == "wise_ft:1.0") & representation["layer"].notna()]
    assert (ends["visual_drift_l1"] == 0).all()
    assert len(ends)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("method=spider", "run.*acts during training.*wise_ft"),
        ("recipe.lr=1e-3", "recipe.lr: run=outputs/run brings its own"),
        ("method.alphas=[2.0]", "method.alphas"),
        ("method.checkpoints=[7]", r"method.checkpoints: outputs/run has no checkpoint at \[7\]"),
        ("run=outputs/none", "outputs/none holds no run"),
        ("method=ties method.merge=[outputs/none]", "method.merge.*outputs/none holds no run"),
        ("run=null recipe=lora", "recipe=lora is for a method of its own"),
    ],
)
def test_an_operation_that_does_not_fit_is_refused(
    uninterrupted: Path, override: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(uninterrupted)
    done = CliRunner().invoke(app, ["finetune", "method=wise_ft", "run=outputs/run", *override.split()])
    assert done.exit_code == 2
    assert re.search(reason, done.stderr), done.stderr
    assert not (uninterrupted / "outputs/none").exists()


def test_a_sweep_trains_and_scores_its_points_and_shares_the_base(tmp_path: Path) -> None:
    sweep = [
        "sweep", "model=tiny_random", "recipe=full_high_lr", "recipe.lr=1e-3,1e-4", "recipe.steps=4",
        "recipe.batch_size=2", "name=grid", *MATRIX, "matrix.decodings=[choice]",
    ]  # fmt: skip
    run(tmp_path, sweep)
    scores = pd.read_csv(tmp_path / "outputs/grid/scores.csv")
    assert scores["run"].nunique() == 2
    base = scores[(scores["step"] == 0) & (scores["metric"] == "accuracy")]
    assert set(base.groupby("dataset")["cell"].nunique()) == {1}
    assert set(scores[scores["step"] == 4].groupby(["dataset", "metric"])["cell"].nunique()) == {2}
    assert pd.read_csv(tmp_path / "outputs/grid/matrix.csv")["run"].nunique() == 2
    points = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs/grid").rglob("delta.safetensors")}
    assert points
    assert "already trained" in run(tmp_path, sweep)
    assert {path: path.stat().st_mtime_ns for path in points} == points


def test_the_base_alone_is_scored_without_a_run(tmp_path: Path) -> None:
    run(tmp_path, ["eval-matrix", "model=tiny_random", *MATRIX])
    (scores,) = (tmp_path / "outputs").glob("base-*/scores.csv")
    assert set(pd.read_csv(scores)["step"]) == {0}


def test_a_run_refused_before_its_first_step_leaves_its_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["finetune", "model=tiny_random", "method=mdgd", "recipe.steps=4", "recipe.batch_size=2", "name=m"]
    refused = CliRunner().invoke(app, [*command, "method.layer=9"])
    assert refused.exit_code == 2
    assert "there is no layer 9" in refused.stderr
    assert not (tmp_path / "outputs/m").exists()
