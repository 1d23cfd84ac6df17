"""Train the embedded model a few steps, score it on a few items, and compare with what should come out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from forgetbench.commands.doctor.finding import Finding, State
from forgetbench.commands.sweep import sweep_point
from forgetbench.config import SweepConfig
from forgetbench.terminal.console import console

EXPECTED = {"fashion_naming": 9 / 20, "digits_naming": 19 / 20}
"""Accuracy of the untouched model by dataset: fp32 on 20 items."""
LOSS, TOLERANCE = 0.7216, 0.01
"""Of the last step, and how far another processor's rounding may move it."""


def self_test_overrides(folder: str) -> list[str]:
    """The configuration of the self-test.

    Args:
        folder: a temporary one.
    """
    return [
        "sweep=grid",
        f"outputs='{folder}'",
        "manifests=[]",
        "data=fashion_naming",
        "recipe=full_low_lr",
        "recipe.steps=4",
        "recipe.batch_size=8",
        "recipe.precision=fp32",
        "recipe.checkpoints.log_spaced=1",
        "matrix.datasets=[fashion_naming,digits_naming]",
        "matrix.decodings=[choice]",
        "matrix.limit=20",
        "matrix.precision=fp32",
        "matrix.representation.enabled=false",
    ]


def run_self_test(settings: SweepConfig) -> Iterator[Finding]:
    """Train, score and compare."""
    folder, started = Path(settings.outputs) / "self_test", time.perf_counter()
    was_quiet, console.quiet = console.quiet, True
    try:
        sweep_point(settings, folder)
    finally:
        console.quiet = was_quiet
    seconds = time.perf_counter() - started
    loss = float(pd.read_csv(folder / "train.csv")["loss"].iloc[-1])
    scores = pd.read_csv(folder / "scores.csv")
    base = scores[(scores["step"] == 0) & (scores["metric"] == "accuracy")].set_index("dataset")["value"]
    yield from compare(loss, {str(name): float(value) for name, value in base.items()}, seconds)


def compare(loss: float, accuracies: Mapping[str, float], seconds: float) -> Iterator[Finding]:
    """What came out beside what should.

    Args:
        loss: of the last step.
        accuracies: of the untouched model, by dataset.
        seconds: that it took.
    """
    if abs(loss - LOSS) <= TOLERANCE:
        yield Finding("training", State.ok, f"4 steps of the embedded model, loss {loss:.4f} as expected")
    else:
        message = f"the embedded model's loss after 4 steps is {loss:.4f}, not {LOSS:.4f}"
        yield Finding("training", State.fails, message, "install the versions of constraints.txt, and report it")
    wrong = {name: accuracies.get(name) for name, value in EXPECTED.items() if accuracies.get(name) != value}
    if wrong:
        mismatches = ", ".join(f"{name}: {value}, not {EXPECTED[name]}" for name, value in wrong.items())
        yield Finding(
            "scoring", State.fails, mismatches, "`forgetbench data check`, and report what it does not explain"
        )
    else:
        yield Finding("scoring", State.ok, f"40 answers of the embedded model as expected; {seconds:.0f} s in all")
