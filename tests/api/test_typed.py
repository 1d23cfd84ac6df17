"""A program that uses the package is checked by mypy, strictly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import forgetbench

run = forgetbench.finetune(["recipe=lora"], recipe={"lr": 1e-4}, seed=1, tracker="tensorboard")
scored: forgetbench.RunResult = forgetbench.eval_matrix(run=run, matrix={"limit": 20})
best: float = scored.matrix["value"].max()
grid = forgetbench.sweep(seed=(0, 1), recipe=("lora", "hybrid"))
names: list[str] = [point.name for point in grid.runs]
page: str = forgetbench.report(grid, flips=3).page.name
rows = len(forgetbench.compare(run, margin=1).rows)
print(run, best, names, page, rows, forgetbench.show(run).folder, forgetbench.__version__)
try:
    forgetbench.finetune(recpie="lora")  # type: ignore[call-arg]
    forgetbench.finetune(seed="1")  # type: ignore[arg-type]
    forgetbench.finetune(seed=(1, 2))  # type: ignore[arg-type]
    run.folder = None  # type: ignore[assignment,misc]
except forgetbench.UserError as refused:
    print(refused)
"""
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_program_passes_mypy_and_wrong_keys_do_not(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "program.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
