"""A sweep whose points a server scores: the same points, their tables, and no word of keys."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.models.held import HeldModel
from tests.support.server_app import StandIn
from tests.support.serving import load_tiny

SWEEP = ["sweep", "name=s", "model=tiny", "threads=1", "recipe=lora", "recipe.steps=2", "recipe.batch_size=2"]
SWEEP += ["recipe.lr=1e-3", "seed=0,1", "recipe.checkpoints.log_spaced=null", "matrix.datasets=[fashion_naming]"]
SWEEP += ["matrix.limit=3", "matrix.decodings=[choice]", "matrix.representation.images=2"]


def call(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_server_scores_the_points_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "a-very-secret-key")
    with StandIn("embedded:tiny", loaded=load_tiny()) as server:
        call(*SWEEP, "engine=server", f"engine.url={server.url}")
        seen = sum(server.seen.values())
    assert seen > 0
    points = sorted(path.parent for path in tmp_path.rglob("run.json"))
    assert [one.name for one in points] == ["seed-0", "seed-1"]
    for point in points:
        assert "engine" not in json.loads((point / "run.json").read_text())["config"]
        assert json.loads((point / "scored.json").read_text())["engine"] == "vllm 0.32.0"
        assert (point / "representation.csv").exists()
        assert set(pd.read_csv(point / "engine.csv")["checkpoint"]) >= {"step_000002"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"very-secret" in path.read_bytes()]


def test_the_model_is_let_go_before_a_server_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models: list[weakref.ref[Any]] = []
    alive: list[bool] = []
    get, drop = HeldModel.get, HeldModel.drop

    def remembering(self: HeldModel) -> Any:
        found = get(self)
        models.append(weakref.ref(found[0].model))
        return found

    def dropping(self: HeldModel) -> None:
        drop(self)
        gc.collect()
        alive.extend(one() is not None for one in models)

    monkeypatch.setattr(HeldModel, "get", remembering)
    monkeypatch.setattr(HeldModel, "drop", dropping)
    with StandIn("embedded:tiny", loaded=load_tiny()) as server:
        call("eval-matrix", "name=b", "model=tiny", "threads=1", "matrix.datasets=[fashion_naming]", "matrix.limit=2",
             "matrix.representation.enabled=false", "engine=server", f"engine.url={server.url}")  # fmt: skip
    assert alive
    assert not any(alive)
