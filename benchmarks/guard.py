"""What a budget of forgetting costs: the same training with and without 200 items asked at four looks.

    python -m benchmarks.guard [--rounds 5] [--write docs/results/guard_speed.md]

The embedded model and world, 240 steps of the recipe `full_low_lr`, one thread. In every round both train from the
start in folders of their own, so that the guard finds no answer and no encoded prompt of an earlier one. Times are of
the whole command less its start, the base's look included. The ratio is of processor seconds, which other programs on
the machine change less than seconds of the clock; the command does nothing beside its one thread.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetbench.commands.finetune import finetune
from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig
from forgetbench.terminal.console import console

SETS = ("digits_naming", "fashion_knowledge", "emoji_category")
GUARD = ("guard.max_loss=50", f"guard.datasets=[{','.join(SETS)}]", "guard.items=200", "guard.every=60")
"""A budget that the recipe keeps, so that both train to the end."""
TARGET = 1.15
"""Times as long as without."""


@dataclass(frozen=True)
class Taken:
    """What a training took, in seconds."""

    clock: float
    processor: float


def take(outputs: Path, overrides: Sequence[str]) -> Taken:
    """Train in a folder of its own."""
    config = compose(FinetuneConfig, ["threads=1", f"outputs={outputs}", "name=run", *overrides])
    clock, processor = time.perf_counter(), time.process_time()
    finetune(config, outputs / "run")
    taken = Taken(time.perf_counter() - clock, time.process_time() - processor)
    shutil.rmtree(outputs)
    return taken


def main() -> None:
    """Measure, print the table; the ratio is the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help="write the table, as Markdown, to this file")
    given = parser.parse_args()
    console.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        take(Path(folder) / "first", ["recipe.steps=2"])  # imports, and what the system keeps of files
        rounds = [
            (take(Path(folder) / "plain", ()), take(Path(folder) / "guarded", GUARD)) for _ in range(given.rounds)
        ]
    ratios = [guarded.processor / plain.processor for plain, guarded in rounds]
    lines = [
        "| round | plain, s | guarded, s | plain, processor s | guarded, processor s | of plain |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for number, ((plain, guarded), ratio) in enumerate(zip(rounds, ratios, strict=True), start=1):
        clocks = f"{plain.clock:.1f} | {guarded.clock:.1f} | {plain.processor:.1f} | {guarded.processor:.1f}"
        lines.append(f"| {number} | {clocks} | {ratio:.3f} |")
    median = f"ratios: guard {statistics.median(ratios):.3f} (at most {TARGET})"
    print("\n".join([*lines, "", median]))
    if given.write:
        command = f"    python -m benchmarks.guard {' '.join(sys.argv[1:])}"
        text = [*(__doc__ or "").split("\n\n")[2:], "\n".join(lines), median]
        given.write.write_text("\n\n".join(["# What a budget of forgetting costs", command, *text]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
