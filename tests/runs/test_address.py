"""What a path names, also where folders are called like the ones we make."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.core.errors import UserError
from forgetbench.models.checkpoint import BASE
from forgetbench.runs.address import resolve
from tests.support.answered import KEEPS, answered_run

FEW = {name: KEEPS[name] for name in ("fashion_naming", "fashion_knowledge")}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in a folder that is called like the folder of a run's checkpoints."""
    folder = tmp_path_factory.mktemp("addresses") / "checkpoints"
    for seed in (0, 1):
        answered_run(folder, f"run--seed-{seed}", FEW, seed=seed)
    answered_run(folder / "grid", "a", FEW)
    return folder


def test_a_run_below_a_folder_called_checkpoints_is_a_run(outputs: Path) -> None:
    address = resolve(outputs / "run--seed-0")
    assert address.checkpoint is None
    assert address.run().name == "run--seed-0"
    assert [run.name for run in resolve(outputs / "grid").runs] == ["a"]


def test_a_checkpoint_is_named_below_its_run(outputs: Path) -> None:
    run = outputs / "run--seed-0"
    assert resolve(run / "checkpoints/base").is_base
    assert resolve(f"{run}/checkpoints/step_000000/").checkpoint == BASE.name
    address = resolve(run / "checkpoints/step_000010")
    assert (address.folder, address.checkpoint) == (run, "step_000010")
    assert set(address.scores(address.runs[0])["step"]) == {10}
    with pytest.raises(UserError, match=r"has no scores of step_000011; it has .*step_000020"):
        resolve(run / "checkpoints/step_000011").scores(address.runs[0])
    with pytest.raises(UserError, match=r"is one checkpoint; name the folder of the run instead: .*seed-0$"):
        address.whole()


def test_a_pattern_names_the_seeds_of_one_recipe(outputs: Path) -> None:
    assert [run.seed for run in resolve(outputs / "run--*").seeds()] == [0, 1]
    assert resolve(outputs / "run--*/checkpoints/base").is_base
    with pytest.raises(UserError, match="matches no scored run"):
        resolve(outputs / "none*").seeds()
    with pytest.raises(UserError, match="is a sweep; name one of its runs"):
        resolve(outputs).seeds()


def test_signs_of_patterns_in_names_of_folders_are_letters(outputs: Path, tmp_path: Path) -> None:
    above = tmp_path / "old [2] größe"
    shutil.copytree(outputs, above)
    assert [run.seed for run in resolve(above / "run--*").seeds()] == [0, 1]
    (above / "run--seed-0").rename(above / "run [x]=1")
    assert resolve(above / "run [x]=1").run().name == "run [x]=1"


@pytest.mark.parametrize("command", ["show", "power", "report"])
def test_what_takes_one_folder_refuses_a_pattern_and_makes_nothing(outputs: Path, tmp_path: Path, command: str) -> None:
    shutil.copytree(outputs, tmp_path / "outputs")
    done = CliRunner().invoke(app, [command, str(tmp_path / "outputs/run--*")])
    assert done.exit_code == 2
    assert "is not a folder" in done.stderr
    assert sorted(path.name for path in (tmp_path / "outputs").glob("run*")) == ["run--seed-0", "run--seed-1"]
