"""Measure ways of doing the same work: each in a process of its own, taking turns in short rounds.

A process says `ready` when it has loaded and warmed up; then it does one round for every line it is sent and answers
with one line of JSON, {"steps_per_s": ..., "peak_memory_mb": ...} and whatever else it has to tell. Ratios are taken
within a round, so that a busy moment of the machine hits both sides, and the median over rounds is told.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass
class Speed:
    """Results of a way's rounds."""

    rounds: list[float] = field(default_factory=list)
    """Steps per second of each."""
    peak_memory_mb: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)
    """Other figures of the last round."""

    def add(self, measured: Mapping[str, Any]) -> None:
        """Take in one round."""
        self.rounds.append(measured["steps_per_s"])
        self.peak_memory_mb = max(self.peak_memory_mb, measured["peak_memory_mb"])
        self.facts = {key: value for key, value in measured.items() if key not in ("steps_per_s", "peak_memory_mb")}

    @property
    def steps_per_s(self) -> float:
        """The median round."""
        return statistics.median(self.rounds)

    def over(self, other: Speed) -> float:
        """How many times as fast as another way: the median over rounds."""
        return statistics.median(self.ratios(other))

    def ratios(self, other: Speed) -> list[float]:
        """How many times as fast as another way, round by round."""
        return [speed / other_speed for speed, other_speed in zip(self.rounds, other.rounds, strict=True)]


class OneRound:
    """A process that measures itself and prints the result as its last line; started anew for every round."""

    def __init__(self, command: Sequence[str]) -> None:
        """Remember the command."""
        self._command = command

    def __enter__(self) -> OneRound:
        """Nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing left."""

    def wait(self) -> None:
        """There is nothing to wait for."""

    def round(self) -> dict[str, Any]:
        """Run the process to its end."""
        ended = subprocess.run(self._command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{' '.join(self._command)} failed:\n{ended.stderr}")
        measured: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return measured


class Worker:
    """A process that does a round per request."""

    def __init__(self, command: Sequence[str]) -> None:
        """Remember the command."""
        self._command = command

    def __enter__(self) -> Worker:
        """Start the process; what it writes to standard error is passed on."""
        self._process = subprocess.Popen(
            self._command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def wait(self) -> None:
        """Until it is ready."""
        self._answer()

    def round(self) -> dict[str, Any]:
        """Let it do one round."""
        assert self._process.stdin is not None
        print(flush=True, file=self._process.stdin)
        measured: dict[str, Any] = json.loads(self._answer())
        return measured

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"A measured process ended early: {' '.join(self._command)}")
        return line


def take_turns(processes: Mapping[str, Worker | OneRound], rounds: int) -> dict[str, Speed]:
    """Start every process, then let them do their rounds one after the other."""
    speeds = {name: Speed() for name in processes}
    with ExitStack() as stack:
        for process in processes.values():
            stack.enter_context(process)
        for process in processes.values():
            process.wait()
        for _ in range(rounds):
            for name, process in processes.items():
                speeds[name].add(process.round())
    return speeds


def serve(work: Callable[[], Mapping[str, float]]) -> None:
    """The other end of `Worker`: do one round for every line of standard input."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(work()), flush=True)
