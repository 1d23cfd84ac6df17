"""Tasks of sweep points that launchers can send to other processes; seeds decide what goes wrong."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from forgetbench.config import SweepConfig

STEPS = 3


def steps(config: SweepConfig, folder: Path) -> None:
    """Work in steps, each kept in a file, from where an earlier process stopped.

    Seed 1 raises; seed 2 is preempted, and seed 3 killed, after the first step of its first process.
    """
    if config.seed == 1:
        raise RuntimeError("out of memory")
    for number in range(STEPS):
        kept = folder / f"step_{number}.json"
        if kept.is_file():
            continue
        message = {"pid": os.getpid(), "threads": config.threads, "where": str(Path.cwd())}
        kept.write_text(json.dumps({"downloads": os.environ.get("FORGETBENCH_DOWNLOADS"), **message}), "utf-8")
        if number == 0 and config.seed in (2, 3):
            os.kill(os.getpid(), signal.SIGUSR2 if config.seed == 2 else signal.SIGKILL)
            signal.sigtimedwait([], 60)  # a signal's handler runs between two instructions of the main thread


def read(folder: Path) -> list[dict[str, Any]]:
    """What every finished step kept."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("step_*.json"))]


def processes(folder: Path) -> list[int]:
    """Which process did each finished step."""
    return [step["pid"] for step in read(folder)]


def killed_point(config: SweepConfig, folder: Path) -> float | None:
    """A real point; the first process of the sweep that reaches a checkpoint is killed there."""
    return _stopped_point(config, folder, signal.SIGKILL)


def preempted_point(config: SweepConfig, folder: Path) -> float | None:
    """A real point; the first process of the sweep that reaches a checkpoint is told to leave its machine."""
    return _stopped_point(config, folder, signal.SIGUSR2)


def _stopped_point(config: SweepConfig, folder: Path, number: int) -> float | None:
    from forgetbench.training import run

    save = run.save_resume

    def stopping(*arguments: Any) -> None:
        save(*arguments)
        try:
            Path("stopped_once").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), number)

    run.save_resume = stopping
    try:
        return noting_point(config, folder)
    finally:
        run.save_resume = save


def noting_point(config: SweepConfig, folder: Path) -> float | None:
    """A real point that notes every cell it makes, in a file of its process in the working folder."""
    from forgetbench.commands import sweep
    from forgetbench.evaluation.cells import CellStore

    write = CellStore.write

    def noting(self: CellStore, digest: str, *others: Any) -> Any:
        with Path(f"made_{os.getpid()}.txt").open("a") as file:
            file.write(f"{digest}\n")
        return write(self, digest, *others)

    CellStore.write = noting  # type: ignore[method-assign]
    try:
        return sweep.sweep_point(config, folder)
    finally:
        CellStore.write = write  # type: ignore[method-assign]
