"""Evaluation killed again and again, at random points, ends with the tables of one that was left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

# One process imports everything; each attempt is a fork of it, killed without warning: some at once, some as soon as so
# many more batches are on disk, a few milliseconds later.
PROGRAM = """
import os, random, signal, sys, time
from pathlib import Path
from forgetbench.cli import app
import forgetbench.evaluation.inference

BATCHES = 6

def batches(folder):
    cells = folder / "outputs/.cells"
    lines = 0
    for path in cells.glob("*.partial/*.jsonl"):
        try:
            lines += path.read_bytes().count(b"\\n")
        except FileNotFoundError:
            pass
    return BATCHES * len(list(cells.glob("*.parquet"))) + lines

def attempt(folder, arguments, more=None, seconds=0.0):
    before = batches(folder)
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        sys.stdout = open(os.devnull, "w")
        try:
            app(arguments, standalone_mode=False)
        except BaseException as error:
            sys.stderr.write(repr(error))
            os._exit(1)
        os._exit(0)
    if more is None:
        return os.waitpid(child, 0)[1]
    while batches(folder) < before + more:
        if os.waitpid(child, os.WNOHANG)[0]:
            return 0
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

train = ["finetune", "model=tiny_random", "name=run", "threads=1", "recipe=full_high_lr", "recipe.steps=4",
         "recipe.batch_size=2", "recipe.checkpoints.log_spaced=null", "recipe.checkpoints.every=2"]
score = ["eval-matrix", "run=outputs/run", "threads=1", "matrix.limit=12", "matrix.batch_size=2",
         "matrix.representation.enabled=false",
         "matrix.datasets=[fashion_naming,fashion_knowledge,emoji_open]", "matrix.class_probe=[fashion_knowledge]"]
alone, killed = Path(sys.argv[1]), Path(sys.argv[2])
assert attempt(alone, train) == 0
assert attempt(killed, train) == 0
assert attempt(alone, score) == 0
draw = random.Random(0)
for _ in range(int(sys.argv[3])):
    more = draw.randrange(7)
    status = attempt(killed, score, more, draw.uniform(0, 0.05 if more else 1.5))
    print(status == signal.SIGKILL, batches(killed))
assert attempt(killed, score) == 0
"""


@pytest.mark.slow
def test_twenty_kills_at_random_points_change_no_byte_of_the_tables(tmp_path: Path) -> None:
    kills = 20
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(alone), str(killed), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    attempts = [line.split() for line in done.stdout.splitlines()]
    assert [was_killed for was_killed, _ in attempts] == ["True"] * kills
    counts = [int(batches) for _, batches in attempts]
    assert counts == sorted(counts), "a kill lost a finished batch"
    assert any(count % 6 for count in counts), "no kill fell inside a cell"
    for name, measured in (("scores.csv", ["seconds"]), ("matrix.csv", [])):
        tables = [
            pd.read_csv(folder / "outputs/run" / name, dtype=str).drop(columns=measured) for folder in (alone, killed)
        ]
        assert tables[0].to_csv() == tables[1].to_csv()
    assert "damaged" not in done.stderr
    left = [path.name for path in (killed / "outputs/.cells").iterdir() if path.suffix != ".parquet"]
    assert left == []
