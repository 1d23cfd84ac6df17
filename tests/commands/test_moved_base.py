"""The base of a run has moved: it is found where model.path says, if it is the same, and nowhere else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from forgetbench.cli import app
from forgetbench.models.checkpoint import list_checkpoints
from tests.support.families import FAMILIES
from tests.support.toys import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    world.score(world.train("run", "smolvlm"))
    # The name is part of the tables, which must not change with the place.
    shutil.move(world.folder / "models/smolvlm", world.folder / "moved")
    shutil.rmtree(world.outputs / ".cells")
    FAMILIES["idefics3"](world.folder / "other")
    return world


def command(world: World, *words: str) -> Result:
    return CliRunner().invoke(app, [word.format(run=world.outputs / "run", here=world.folder) for word in words])


SCORE = (
    "eval-matrix", "run={run}", "manifests=[{here}/data]", "threads=1", "matrix.datasets=[toy,other]",
    "matrix.decodings=[choice]", "matrix.representation.enabled=false",
)  # fmt: skip
OPERATE = ("finetune", "run={run}", "method=wise_ft", "method.alphas=[0.5]", "threads=1")
MOVED = "model.path={here}/moved"


@pytest.mark.parametrize("words", [SCORE, OPERATE, ("export", "{run}", "{here}/exported")], ids=lambda words: words[0])
def test_a_base_that_is_not_found_is_told_with_what_to_type(world: World, words: tuple[str, ...]) -> None:
    done = command(world, *words)
    assert done.exit_code == 2
    assert "there is no such folder" in done.stderr
    assert "say where, every time: model.path=<folder> beside run=, or export --model-path" in done.stderr


def test_another_base_is_refused_by_name(world: World) -> None:
    for done in (
        command(world, *SCORE, "model.path={here}/other"),
        command(world, *OPERATE, "model.path={here}/other"),
        command(world, "export", "{run}", "{here}/exported", "--model-path", "{here}/other"),
    ):
        assert done.exit_code == 2
        assert f"model.path={world.folder / 'other'} does not hold the weights and settings" in done.stderr
    assert not (world.folder / "exported").exists()


def test_other_keys_of_the_model_stay_those_of_the_run(world: World) -> None:
    done = command(world, *SCORE, MOVED, "model.max_pixels=64")
    assert done.exit_code == 2
    assert "model.max_pixels: run=" in done.stderr
    assert "Only model.path may be given" in done.stderr


def test_the_same_base_elsewhere_gives_the_same_tables_variants_and_export(world: World) -> None:
    run = world.outputs / "run"
    before = pd.read_csv(run / "scores.csv").drop(columns="seconds")
    record = (run / "run.json").read_bytes()
    assert command(world, *SCORE, MOVED).exit_code == 0
    pd.testing.assert_frame_equal(pd.read_csv(run / "scores.csv").drop(columns="seconds"), before)
    assert command(world, *OPERATE, MOVED).exit_code == 0
    assert list_checkpoints(run)[-1].variant == "wise_ft:0.5"
    export = ("export", "{run}", "{here}/exported", "--model-path", "{here}/moved")
    assert command(world, *export).exit_code == 0
    assert Path(world.folder / "exported/model.safetensors").is_file()
    assert (run / "run.json").read_bytes() == record
