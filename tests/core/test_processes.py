"""Two processes of one run, as torchrun and accelerate start them, on tests/support/together.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from forgetbench.cli import app, main
from forgetbench.core.records import Precision
from forgetbench.models.checkpoint import list_checkpoints
from tests.support.families import FAMILIES, llava
from tests.support.together import CASES, RESUMED, SCORE, TRAIN, family_case, finish, kill_after, report_case, trainer

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder, env=ENVIRONMENT, text=True, capture_output=True, timeout=400, check=False,
    )  # fmt: skip


def torchrun() -> list[str]:
    address = ["--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    return ["torch.distributed.run", "--nproc_per_node=2", *address, "-m"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="module")
def two(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of all that they were asked for, in one start of them."""
    folder = tmp_path_factory.mktemp("two")
    kill_after(3, trainer(model, RESUMED), folder / "killed alone, then sliced", RESUMED)
    done = start(Path(__file__).parents[2], *torchrun(), "tests.support.together", "cases", str(model), str(folder))
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def reports(folder: Path, name: str, key: str) -> Any:
    return np.array([row[key] for row in json.loads((folder / f"{name}.json").read_text())])


def furthest(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of any entry."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_follow_one(model: Path, two: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    report_case(trainer(model, case), case, tmp_path / name)
    half = case.recipe.get("precision") is Precision.bf16
    for key in ("loss", "grad_norm"):
        assert reports(two, name, key) == pytest.approx(reports(tmp_path, name, key), abs=5e-2 if half else 1e-5)
    assert (reports(two, name, "samples") == reports(tmp_path, name, "samples")).all()
    weights = [load_file(folder / f"{name}.safetensors") for folder in (tmp_path, two)]
    # Over twenty steps of size 1e-4, Adam makes much of a rounding of gradients near 0.
    assert furthest(*weights) < (1e-3 if half else 1e-4 if case.steps == 20 else 1e-5)
    # Two processes sum in another order; equality to the last bit would mean that they did not share the work.
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_some_steps_show_one_process_a_picture_and_some_show_none_to_anyone() -> None:
    """Such steps differ in what is exchanged, so that the cases above must hold some."""
    steps = [CASES["fsdp2"].shown(step) for step in range(1, 21)]
    assert any(not any(step) for step in steps)
    assert any(any(step) and not all(step) for step in steps)


@pytest.mark.parametrize("begun", ["killed, then sliced", "killed alone, then sliced", "killed, then alone"])
def test_a_killed_run_ends_the_same_with_slices_or_without(model: Path, two: Path, tmp_path: Path, begun: str) -> None:
    folder = two / begun
    if not folder.exists():
        folder = shutil.copytree(two / "killed", tmp_path / "run")
        assert (folder / "resume").is_dir()
        finish(trainer(model, RESUMED), folder, RESUMED)
    whole, resumed = (list_checkpoints(run) for run in (two / "whole", folder))
    assert [checkpoint.step for checkpoint in resumed] == [0, 3, 6]
    for expected, actual in zip(whole[1:], resumed[1:], strict=True):
        assert furthest(expected.delta(), actual.delta()) < 1e-5
    if begun == "killed, then sliced":  # a resumed run is no other run
        assert resumed[-1].digest == whole[-1].digest
    assert not (folder / "resume").exists()
    log = pd.read_csv(folder / "train.csv")
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_what_two_processes_cannot_share_is_refused_by_name(two: Path) -> None:
    refusals = json.loads((two / "refusals.json").read_text())
    assert refusals["uneven"].startswith(
        "Stage 2 (toy): batch_size / gradient_accumulation = 1 cannot be shared by 2 proc"
    )
    assert re.match("method=lwf: .*use sharding=none", refusals["method"])


def cell_rows(folder: Path) -> dict[str, str]:
    cells = (folder / "outputs/.cells").glob("*.parquet")
    return {cell.name: pd.read_parquet(cell).to_json() for cell in cells}


def tables(folder: Path) -> list[str]:
    run = folder / "outputs/run"
    scores = pd.read_csv(run / "scores.csv", dtype=str).drop(columns="seconds").to_csv()
    return [scores, (run / "representation.csv").read_text()]


def test_a_sliced_run_is_scored_with_the_rows_of_one_process(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (two / "stdout").read_text().count("trained 4 steps") == 1
    one_process, together, apart = (two / "command" / name for name in ("alone", "together", "apart"))
    monkeypatch.chdir(one_process)
    assert not app(SCORE, standalone_mode=False)
    assert len(cell_rows(one_process)) == 6
    for folder in (together, apart):  # one command of two processes, and two commands at the same time
        assert cell_rows(folder) == cell_rows(one_process)
        assert tables(folder) == tables(one_process)
        assert {path.suffix for path in (folder / "outputs/.cells").iterdir()} == {".parquet"}


def test_the_processes_share_the_batches_of_every_cell(two: Path) -> None:
    assert json.loads((two / "command/shares.json").read_text()) == [[0, 2], [1, 3]]


def test_a_guard_stops_two_processes_together_and_its_answers_are_those_of_one(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two / "command/guarded")
    run = Path("outputs/guarded")
    looks = pd.read_csv(run / "guard.csv")
    assert looks["decision"].iloc[-1] == "stop"
    assert len(pd.read_csv(run / "train.csv")) == looks["step"].iloc[-1] < 4
    asked = ["matrix.datasets=[digits_naming]", "matrix.limit=20", "matrix.decodings=[choice]"]
    assert not app(["score", f"run={run}", *asked, "--partial"], standalone_mode=False)  # no model: the cells are there
    scores = pd.read_csv(run / "scores.csv").set_index("step").query("metric == 'accuracy'")["value"]
    kept = looks[looks["step"].isin(scores.index)]
    assert (scores[0] - scores[kept["step"]]).tolist() == pytest.approx(kept["loss"].tolist())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_every_family_follows_one_process_when_it_is_sliced(tmp_path: Path) -> None:
    models, one_process, two_processes = (tmp_path / name for name in ("models", "one", "two"))
    for folder in (models, one_process, two_processes):
        folder.mkdir()
    for name, build in FAMILIES.items():
        build(models / name)
    done = start(
        Path(__file__).parents[2], *torchrun(), "tests.support.together", "families", str(models), str(two_processes)
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in FAMILIES:
        case = family_case(name)
        report_case(trainer(models / name, case), case, one_process / name)
        assert reports(two_processes, name, "loss") == pytest.approx(reports(one_process, name, "loss"), abs=1e-5), name
        weights = [load_file(folder / f"{name}.safetensors") for folder in (one_process, two_processes)]
        assert furthest(*weights) < 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_accelerate_launch_starts_two_processes_that_train_as_one(tmp_path: Path, sharding: str) -> None:
    two_processes, one_process = tmp_path / "two", tmp_path / "one"
    port = f"--main_process_port={free_port()}"
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", port, "-m"]
    for folder, command in (
        (two_processes, [*launcher, "forgetbench", *TRAIN, f"sharding={sharding}"]),
        (one_process, ["forgetbench", *TRAIN]),
    ):
        folder.mkdir()
        done = start(folder, *command)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("trained 4 steps") == 1
    weights = [list_checkpoints(folder / "outputs/run")[-1].delta() for folder in (one_process, two_processes)]
    assert furthest(*weights) < 1e-4
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_accelerate_launch_of_a_single_process_is_told_apart(tmp_path: Path) -> None:
    done = start(tmp_path, "accelerate.commands.launch", "--cpu", "--num_processes=2", "-m", "forgetbench", *TRAIN)
    assert done.returncode != 0
    assert "started one process of several" in done.stderr


def test_a_command_that_ends_well_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for arguments, remains in ((["no-such-command"], True), (["--version"], False)):
        monkeypatch.setattr(sys, "argv", ["forgetbench", *arguments])
        with pytest.raises(SystemExit):
            main()
        assert distributed.is_initialized() is remains


def test_a_process_of_a_sweep_ends_when_the_command_that_started_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "import time\nfrom forgetbench.core.processes import end_with_parent\n"
        "end_with_parent()\nprint('begun', flush=True)\ntime.sleep(300)\n"
    )
    parent = "import subprocess, sys\nsubprocess.run([sys.executable, sys.argv[1]])\n"
    root, command = Path(__file__).parents[2], [sys.executable, "-c", parent, str(tmp_path / "child.py")]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "begun\n"
        started.kill()
        started.communicate(timeout=60)  # the output is open for as long as the child runs
