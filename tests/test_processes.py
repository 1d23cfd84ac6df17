"""Two processes of one run, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

RUN = [
    "finetune", "model=tiny_random", "recipe=language_projector_low_lr", "recipe.steps=4", "recipe.batch_size=8",
    "recipe.gradient_accumulation=2", "recipe.precision=fp32", "recipe.mix.data=[words_naming]",
    "recipe.mix.ratio=0.5", "threads=1", "name=run",
]  # fmt: skip


def start(folder: Path, launcher: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, "forgetbench", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, timeout=240, check=False
    )


def torchrun() -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ["torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}", "-m"]


def test_two_processes_share_every_batch_and_end_where_one_does(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, launcher in ((one, []), (two, torchrun())):
        folder.mkdir()
        done = start(folder, launcher, RUN)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("trained 4 steps") == 1
    logs = [pd.read_csv(folder / "outputs/run/train.csv") for folder in (one, two)]
    assert logs[0]["loss"].to_numpy() == pytest.approx(logs[1]["loss"].to_numpy(), abs=1e-5)
    weights = [load_file(folder / "outputs/run/checkpoints/step_000004/delta.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-4
    # Two processes sum in another order; equality to the last bit would mean that they did not share the work.
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# The second stage trains other parts than the first.
STAGES = (
    "data.stages=[{set:fashion_naming,steps:2,recipe:{parts:[projector],mix:{ratio:0}}},"
    "{set:words_naming,recipe:{parts:[language]}}]"
)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("method=mdgd", marks=pytest.mark.slow),
        f"{STAGES} method=ewc method.samples=5 method.reference=[digits_naming]",
    ],
    ids=["mdgd", "ewc-stages"],
)
def test_methods_that_sum_over_processes_end_where_one_does(tmp_path: Path, method: str) -> None:
    weights = []
    for name, launcher in (("one", []), ("two", torchrun())):
        folder = tmp_path / name
        folder.mkdir()
        done = start(folder, launcher, [*RUN, *method.split(), "recipe.lr=1e-4"])
        assert done.returncode == 0, done.stderr
        last = sorted((folder / "outputs/run/checkpoints").iterdir())[-1]
        weights.append(load_file(last / "delta.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-4
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    done = start(tmp_path, torchrun(), [*RUN, "recipe.batch_size=6"])
    assert done.returncode != 0
    assert "cannot be shared by 2 processes" in done.stderr
    assert not list(tmp_path.rglob("delta.safetensors"))


EVALUATE = [
    "eval-matrix", "model=tiny_random", "threads=1", "matrix.limit=10", "matrix.batch_size=3",
    "matrix.datasets=[fashion_naming,fashion_yesno,emoji_open]",
]  # fmt: skip


def scored(folder: Path) -> str:
    (path,) = (folder / "outputs").glob("base-*/scores.csv")
    return pd.read_csv(path, dtype=str).drop(columns="seconds").to_csv()


def cell_rows(folder: Path) -> dict[str, str]:
    cells = (folder / "outputs/.cells").glob("*.parquet")
    return {cell.name: pd.read_parquet(cell).to_json() for cell in cells}


def test_two_processes_answer_whole_batches_each_and_give_the_rows_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, launcher in ((one, []), (two, torchrun())):
        folder.mkdir()
        done = start(folder, launcher, EVALUATE)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("5 cells;") == 1
    assert len(cell_rows(one)) == 5
    assert cell_rows(one) == cell_rows(two)
    assert scored(one) == scored(two)
    tables = [next((folder / "outputs").glob("base-*/representation.csv")).read_text() for folder in (one, two)]
    assert tables[0] == tables[1]


SHARE = """
import sys
from forgetbench.evaluation import journal
from forgetbench.processes import join_crew
crew = join_crew()
assert crew.size == 2, crew
asked = []
add = journal.Journal.add
journal.Journal.add = lambda self, number, predictions: (asked.append(number), add(self, number, predictions))
from forgetbench.cli import app
app(sys.argv[1:], standalone_mode=False)
everyone = crew.gather([sorted(asked)])
if crew.is_main:
    print(f"shares {everyone}")
"""


def test_the_processes_share_the_batches_of_every_cell(tmp_path: Path) -> None:
    program = tmp_path / "share.py"
    program.write_text(SHARE)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    arguments = [*EVALUATE, "matrix.datasets=[fashion_naming]", "matrix.decodings=[choice]"]
    command = [sys.executable, "-m", *torchrun()[:-1], str(program), *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "shares [[0, 2], [1, 3]]" in done.stdout


def test_two_commands_on_one_folder_share_the_work_and_make_the_same_tables(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    assert start(alone, [], EVALUATE).returncode == 0
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: start(together, [], EVALUATE), range(2)))
    for done in both:
        assert done.returncode == 0, done.stderr
        assert "damaged" not in done.stderr
    assert scored(together) == scored(alone)
    assert sorted(path.suffix for path in (together / "outputs/.cells").iterdir()) == [".parquet"] * 5
