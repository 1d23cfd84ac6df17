"""Runs of two engines: told apart, and not held side by side in silence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.core.records import Prediction
from forgetbench.data.catalogue import Catalogue
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.evaluate import plan
from forgetbench.evaluation.sets import load_sets
from forgetbench.runs.run import read_run
from forgetbench.runs.scored import recall

RUN = ["model=tiny_random", "threads=1", "recipe=full_high_lr", "recipe.steps=1", "recipe.batch_size=2"]
MATRIX = ["matrix.datasets=[fashion_naming]", "matrix.limit=8", "matrix.representation.enabled=false"]
OTHER = "vllm 9.9"


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.stderr
    return result.stderr if code else result.stdout + result.stderr


def answer_by(engine: str, folder: Path, offset: float) -> None:
    """Store a run's cells as another engine would have made them, its log-probabilities a little off."""
    scored = recall(folder)
    assert scored
    run, store = read_run(folder), CellStore(Path("outputs"))
    sets = load_sets(scored.config, Catalogue([]))
    ours = plan(run.model_digest, run.checkpoints(), sets, scored.config)
    theirs = plan(run.model_digest, run.checkpoints(), sets, scored.config, engine)
    for one, other in zip(ours, theirs, strict=True):
        assert one.digest != other.digest
        cell = store.read(one.digest, one.dataset.manifest.metric)
        assert cell
        predictions = [
            Prediction(
                None if values is None else tuple(one + offset for one in values), text if values is None else None
            )
            for values, text in zip(cell.frame["option_logprobs"], cell.frame["text"], strict=True)
        ]
        settings = replace(other.settings, max_new_tokens=one.settings.max_new_tokens)
        dataset = one.dataset
        store.write(
            other.digest, dataset.samples, dataset.image_digests, predictions, settings, dataset.manifest.metric, 1.0
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("finetune", *RUN, "name=run")
        call("eval-matrix", "run=outputs/run", "threads=1", *MATRIX)
        answer_by(OTHER, folder / "outputs/run", 0.25)
    return folder


@pytest.fixture
def mine(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs/run"


def test_a_run_is_held_against_itself_across_engines(mine: Path) -> None:
    shown = call("compare", "outputs/run", "--engine", OTHER)
    assert "fashion_naming, choice: 8 of 8 answers are the same, log-probabilities at most 0.25 apart" in shown
    assert "fashion_naming, greedy: 8 of 8 answers are the same" in shown
    assert "2 of 2 cells of vllm 1.0 are not there" in call("compare", "outputs/run", "--engine", "vllm 1.0", code=2)
    assert "was scored by it last" in call("compare", "outputs/run", "--engine", "transformers", code=2)


def test_tables_of_the_other_engine_are_made_from_its_cells_and_remembered(mine: Path) -> None:
    before = (mine / "scores.csv").read_text()
    call("score", "run=outputs/run", f"engine_name={OTHER}")
    assert json.loads((mine / "scored.json").read_text())["engine"] == OTHER
    other = (mine / "scores.csv").read_text()
    assert other != before
    call("score", "run=outputs/run")
    assert (mine / "scores.csv").read_text() == other
    call("score", "run=outputs/run", "engine_name=transformers")
    assert (mine / "scores.csv").read_text() == before
    assert "engine" not in json.loads((mine / "scored.json").read_text())


def test_runs_of_two_engines_are_compared_only_if_told(mine: Path) -> None:
    shutil.copytree(mine, mine.parent / "second")
    call("score", "run=outputs/second", f"engine_name={OTHER}")
    message = call("compare", "outputs/run", "outputs/second", code=2)
    assert "outputs/run was scored by transformers, and outputs/second by vllm 9.9" in message
    assert "fashion_naming" in call("compare", "outputs/run", "outputs/second", "--across-engines")
    for command in ("show", "report"):
        assert "a difference could be the engines'" in call(command, "outputs", code=2)


def test_seeds_that_two_engines_scored_are_not_held_against_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):  # of one base: random weights would follow the seed
        call("finetune", *RUN, "model=tiny", f"seed={seed}", f"name=run-seed{seed}")
        call("eval-matrix", f"run=outputs/run-seed{seed}", "threads=1", *MATRIX, "matrix.decodings=[choice]")
        answer_by(OTHER, tmp_path / f"outputs/run-seed{seed}", 0.25)
    assert "16 of 16 answers are the same" in call("compare", "outputs/run-seed*", "--engine", OTHER)
    call("score", "run=outputs/run-seed1", f"engine_name={OTHER}")
    message = call("compare", "outputs/run-seed*", "--engine", OTHER, code=2)
    assert "outputs/run-seed0 was scored by transformers, and outputs/run-seed1 by vllm 9.9" in message
    assert "Name one run." in message
