"""Train in the folder of one run: start or resume, write checkpoints and train.csv."""

from __future__ import annotations

import csv
import resource
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch

from forgetbench.config import Tracker
from forgetbench.core.files import naming, replacing
from forgetbench.models.checkpoint import (
    drop_resume,
    list_checkpoints,
    load_resume,
    save_checkpoint,
    save_resume,
    step_name,
)
from forgetbench.terminal.console import say
from forgetbench.terminal.progress import progress
from forgetbench.training.interruption import DelayedSignals, ResumeClock
from forgetbench.training.loop import Resume, StepReport, Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.tracking import connect_tracker


class Watch(Protocol):
    """Looks at checkpoints while a run trains."""

    @property
    def steps(self) -> Collection[int]:
        """The steps after which it looks; all of them are checkpoints."""

    def look(self, step: int) -> bool:
        """Look at every due checkpoint up to a step; True, in all processes, if training must end here.

        Results of earlier looks are reused, so that a killed run ends as if it had not been killed.
        """

    def numbers(self, step: int) -> Mapping[str, float]:
        """The numbers of the look at a step, for a tracker; empty outside the main process."""

    def end(self) -> None:
        """Called in the main process when training is over, before the resume point is removed."""


def train(
    folder: Path,
    trainer: Trainer,
    stages: Sequence[Stage],
    keep: Sequence[int],
    meta: Mapping[str, Any],
    tracker: Tracker = Tracker.none,
    resume_minutes: float = 5.0,
    watch: Watch | None = None,
) -> float:
    """Train to the last step in `keep`, from the newest resume point if there is one.

    A signal that asks the process to stop takes effect after the step, when a resume point is written. If the last step
    in `keep` is not the end of the last stage, its resume point stays.

    Args:
        folder: the run's folder.
        trainer: on the starting weights.
        stages: what to train on.
        keep: steps to checkpoint, ascending; the last one ends this call.
        meta: stored in every checkpoint; its `config` is what a tracker shows.
        tracker: gets each step's numbers, as train.csv does.
        resume_minutes: between resume points; 0 writes one after every step.
        watch: may end training at a checkpoint.

    Returns:
        Seconds that the steps of this process took.
    """
    resume = _find_resume(folder, keep, [0, *accumulate(stage.steps for stage in stages)])
    total, done, seconds = sum(stage.steps for stage in stages), resume.point.step if resume else 0, 0.0
    ended = watch is not None and watch.look(done)
    if not ended and done < keep[-1]:
        clock = ResumeClock(resume_minutes)
        seconds, ended = _train(folder, trainer, stages, keep, meta, tracker, clock, watch, resume)
    if trainer.accelerator.is_main_process:
        if watch:
            watch.end()
        if ended or keep[-1] == total:
            drop_resume(folder)
    trainer.accelerator.wait_for_everyone()
    return seconds


def _train(
    folder: Path,
    trainer: Trainer,
    stages: Sequence[Stage],
    keep: Sequence[int],
    meta: Mapping[str, Any],
    tracker: Tracker,
    clock: ResumeClock,
    watch: Watch | None,
    resume: Resume | None,
) -> tuple[float, bool]:
    """Train the remaining steps; returns the seconds that they took, and whether the watch ended training."""
    done, seconds = resume.point.step if resume else 0, 0.0
    main, total = trainer.accelerator.is_main_process, sum(stage.steps for stage in stages)
    with (
        DelayedSignals() as signals,
        progress(f"training {folder}", keep[-1], "steps", done) as advance,
        connect_tracker(tracker if main else Tracker.none, folder, meta.get("config", {})) as connection,
        TrainLog(folder / "train.csv", trainer.trained_parts(stages), done, main) as log,
    ):
        for report in trainer.run(stages, resume):
            connection.log(report.step, log.add(report))
            advance(_detail(report, stages), 1)
            seconds += report.seconds
            if report.step in keep:
                _save(folder, trainer, report, meta)
            received, (is_due,) = signals.pending(trainer.accelerator, main and clock.is_due())
            # With a watch also after the last step: a kill may come while it looks.
            goes_on = watch is not None or report.step != total
            if goes_on and (report.step in keep or is_due or received):
                with clock.writing():
                    _save_resume(folder, trainer, report.step)
                signals.deliver(received)
            if watch and report.step in watch.steps:
                ended = watch.look(report.step)
                connection.log_scores(report.step, watch.numbers(report.step))
                if ended:
                    return seconds, True
            if report.step == keep[-1]:
                break
    return seconds, False


def _save(folder: Path, trainer: Trainer, report: StepReport, meta: Mapping[str, Any]) -> None:
    """Write a checkpoint; all processes must call it, as tensors may be sliced."""
    delta = trainer.delta()
    if trainer.accelerator.is_main_process:
        save_checkpoint(folder, report.step, delta, {**meta, "stage": report.stage})


def _save_resume(folder: Path, trainer: Trainer, step: int) -> None:
    """Write a resume point; all processes wait, as none may end while the main process writes."""
    point = trainer.resume_point(step)
    if trainer.accelerator.is_main_process:
        save_resume(folder, point)
    trainer.accelerator.wait_for_everyone()


def is_finished(folder: Path, keep: Sequence[int]) -> bool:
    """Whether every checkpoint of the run is stored."""
    return all(_has_checkpoint(folder, step) for step in keep)


def _has_checkpoint(folder: Path, step: int) -> bool:
    return (folder / "checkpoints" / step_name(step) / "meta.json").is_file()


def _find_resume(folder: Path, keep: Sequence[int], ends: Sequence[int]) -> Resume | None:
    """State of an earlier process; None if there is none, or if an earlier checkpoint is missing.

    Args:
        folder: the run's folder.
        keep: steps that are checkpointed.
        ends: the last step of every stage, and 0.
    """
    point = load_resume(folder)
    if point is None:
        if any((folder / "resume").glob("step_*/*")):
            say(f"{folder}: its resume point is of an earlier version of forgetbench, so training starts anew.")
        return None
    if gone := [step_name(step) for step in keep if step <= point.step and not _has_checkpoint(folder, step)]:
        say(f"{folder}: its checkpoint {gone[0]} is gone, so training starts anew.")
        return None
    say(f"{folder}: training goes on after step {point.step}.")
    checkpoints = {checkpoint.step: checkpoint for checkpoint in list_checkpoints(folder) if not checkpoint.variant}
    before = max(end for end in ends if end <= point.step)
    return Resume(point, checkpoints[before].delta() if before < point.step else {})


def _detail(report: StepReport, stages: Sequence[Stage]) -> str:
    stage = f"stage {report.stage} of {len(stages)} ({stages[report.stage - 1].target}), " if len(stages) > 1 else ""
    lr = " ".join(f"{value:.1e}" for value in report.lr.values())
    return f"{stage}loss {report.loss:.3f}, lr {lr}, {report.samples / report.seconds:.0f} samples/s"


class TrainLog:
    """train.csv: one row per optimiser step; the measured columns come last."""

    MEASURED = ("samples_per_s", "tokens_per_s", "peak_memory_mb")

    def __init__(self, path: Path, parts: Sequence[str], after: int, writes: bool) -> None:
        """Keep the rows of an earlier process up to step `after`; later steps will be repeated."""
        self._parts, self._path = parts, path
        header = ["step", "stage", "loss", *(f"lr_{part}" for part in parts), "grad_norm", *self.MEASURED]
        self._file: TextIO | None = None
        if not writes:
            return
        kept_rows: list[list[str]] = []
        if after and path.is_file():
            with path.open(newline="") as file:
                # A line that a kill cut short lacks columns.
                kept_rows = [
                    row for row in list(csv.reader(file))[1:] if len(row) == len(header) and int(row[0]) <= after
                ]
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([header, *kept_rows])
        self._file = path.open("a", newline="", buffering=1)

    def __enter__(self) -> TrainLog:
        """Return the log."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def add(self, report: StepReport) -> dict[str, float]:
        """Append one step; returns its numbers by column."""
        if self._file is None:
            return {}
        measured = (report.samples / report.seconds, report.tokens / report.seconds, peak_memory_mb())
        lrs = (repr(report.lr[part]) if part in report.lr else "" for part in self._parts)
        with naming(self._path):
            csv.writer(self._file).writerow(
                [report.step, report.stage, repr(report.loss), *lrs, repr(report.grad_norm)]
                + [f"{value:.1f}" for value in measured]
            )
        return {
            "stage": report.stage,
            "loss": report.loss,
            **{f"lr_{part}": value for part, value in report.lr.items()},
            "grad_norm": report.grad_norm,
            **dict(zip(self.MEASURED, measured, strict=True)),
        }


def peak_memory_mb() -> float:
    """Peak memory so far: the GPU's if there is one, else the process's resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
