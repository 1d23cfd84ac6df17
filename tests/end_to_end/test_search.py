"""A search with a real, tiny model: the same points in two processes as in one, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.commands.finetune import finetune
from forgetbench.config import CheckpointConfig, GuardConfig
from forgetbench.models.checkpoint import list_checkpoints
from tests.support.toys import World

pytest.importorskip("optuna")

SEARCH = [
    "sweep", "sweep=search", "name=s", "model=tiny_random", "threads=1", "recipe.batch_size=2", "search.steps=16",
    "search.generation=3", "search.rungs=[0.5]", "search.items=8", "matrix.limit=12", "matrix.batch_size=4",
    "matrix.datasets=[fashion_naming,fashion_yesno,digits_naming]", "search.validation={}",
    "search.space={recipe: null, recipe.parts: {choice: [[projector],[language]]}, method: null, "
    "recipe.steps: {choice: [2,4]}}",
]  # fmt: skip


@pytest.fixture
def workers() -> Iterator[None]:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    from joblib.externals.loky import get_reusable_executor

    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def search(*overrides: str) -> pd.DataFrame:
    done = CliRunner().invoke(app, [*SEARCH, *overrides], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return pd.read_csv("outputs/s/search.csv")


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_two_processes_search_the_same_points_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, overrides in (("one", []), ("two", ["launcher=joblib"])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found.append((search(*overrides).to_csv(), Path("outputs/s/front.csv").read_text("utf-8")))
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_search_leaves_its_points_its_front_and_the_lines_that_train_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    points = search("search.steps=8", "search.generation=2")
    front = pd.read_csv("outputs/s/front.csv")
    assert 0 < points["trained"].sum() <= 8
    assert {"complete", "stopped"} <= set(points["end"])
    complete = points[points["end"] == "complete"]
    assert set(front["point"]) <= set(complete["point"])
    row = front.iloc[0]
    folder = Path("outputs/s", row["folder"])
    tested = pd.read_csv(folder / "scores.csv").query("metric == 'accuracy'")
    own = tested[(tested["dataset"] == "fashion_naming") & (tested["step"] == row["steps"])]
    assert own["value"].tolist() == [row["test_target"]]
    assert own["n"].tolist() == [12]
    assert f"recipe.steps={row['steps']} " in row["command"]
    assert Path("outputs/s/figures/search.svg").is_file()
    stopped = points[points["end"] == "stopped"].iloc[0]
    assert not list(Path("outputs/s", stopped["folder"], "resume").glob("step_*"))
    assert not (Path("outputs/s", stopped["folder"]) / "scores.csv").exists()
    assert json.loads((folder / "scored.json").read_text())["matrix"]["skip"] == {}


def test_a_training_that_pauses_ends_with_the_same_bytes_and_trains_no_step_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    whole = world.train("whole", "llava", steps=4)
    config, folder = world.config("paused", "llava", steps=4), world.outputs / "paused"
    finetune(config, folder, share=0.5)
    assert [one.step for one in list_checkpoints(folder)] == [0, 1, 2]
    before = (folder / "train.csv").read_bytes()
    finetune(config, folder, share=0.5)
    finetune(config, folder)
    assert (folder / "train.csv").read_bytes().startswith(before)
    weights = "checkpoints/step_000004/delta.safetensors"
    assert (folder / weights).read_bytes() == (whole / weights).read_bytes()
    assert list((folder / "resume").glob("step_*")) == list((whole / "resume").glob("step_*")) == []


def test_a_guarded_training_that_pauses_sees_and_ends_as_one_that_does_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    guard = GuardConfig(max_loss=100.0, datasets=["other"], items=8, every=2)
    for name, shares in (("whole", (1.0,)), ("paused", (0.25, 0.5, 0.5, 1.0))):
        config = replace(world.config(name, "llava", steps=4, checkpoints=CheckpointConfig()), guard=guard)
        for share in shares:
            finetune(config, world.outputs / name, share)
    whole, paused = world.outputs / "whole", world.outputs / "paused"
    assert (whole / "guard.csv").read_text().replace("whole", "paused") == (paused / "guard.csv").read_text()
    weights = "checkpoints/step_000004/delta.safetensors"
    assert (whole / weights).read_bytes() == (paused / weights).read_bytes()
