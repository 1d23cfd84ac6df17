"""A run that is told to stop finishes its step, keeps where it stands, and ends later with the same bytes."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from forgetbench.methods.lora import LoRA
from forgetbench.models.checkpoint import load_resume
from forgetbench.training import interruption
from forgetbench.training.interruption import ResumeClock
from forgetbench.training.loop import Resume, StepReport, Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.run import TrainLog, train
from tests.support.families import llava
from tests.support.runs import plan, trainer

STEPS, KEEP = (3, 3), [3, 6]
META = {"method": {"name": "lora"}}


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Ctrl-C interrupts, though a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("whole")
    train(run, fresh(folder), plan(*STEPS), KEEP, META)
    return left_by(run)


def fresh(folder: Path) -> Trainer:
    return trainer(folder, LoRA(rank=2, dropout=0.3), stages=len(STEPS))


def left_by(run: Path) -> dict[str, Any]:
    """Checkpoints byte for byte, and train.csv without what was measured."""
    with (run / "train.csv").open() as file:
        rows = [row[: -len(TrainLog.MEASURED)] for row in csv.reader(file)]
    return {"rows": rows, **{str(path.relative_to(run)): path.read_bytes() for path in run.glob("checkpoints/*/*")}}


def during(subject: Trainer, step: int, action: Callable[[], object]) -> Trainer:
    """The trainer, with something that happens while it makes a step."""
    original = subject.run

    def run(given: Sequence[Stage], resume: Resume | None = None) -> Iterator[StepReport]:
        for report in original(given, resume):
            if report.step == step:
                action()
            yield report

    subject.run = run  # type: ignore[method-assign]
    return subject


def recording(folder: Path) -> tuple[Trainer, list[int]]:
    """A trainer, and the steps that it will have made."""
    made: list[int] = []
    subject = fresh(folder)
    for step in range(1, sum(STEPS) + 1):
        during(subject, step, lambda step=step: made.append(step))  # type: ignore[misc]
    return subject, made


@pytest.mark.parametrize("step", [1, 2, 4, 5])
def test_ctrl_c_ends_the_step_and_the_same_command_goes_on_with_the_next_one(
    folder: Path, tmp_path: Path, whole: dict[str, Any], step: int
) -> None:
    stopped = during(fresh(folder), step, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stopped, plan(*STEPS), KEEP, META)
    assert [path.name for path in (tmp_path / "resume").iterdir()] == [f"step_{step:06d}"]
    again, made = recording(folder)
    train(tmp_path, again, plan(*STEPS), KEEP, META)
    assert made == list(range(step + 1, 7))
    assert left_by(tmp_path) == whole
    assert not (tmp_path / "resume").exists()


def test_points_in_time_are_kept_for_the_newest_only_and_change_no_byte(
    folder: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    class KilledError(Exception):
        pass

    def kill() -> None:
        raise KilledError

    for step in (3, 6):  # killed in the middle of these
        with pytest.raises(KilledError):
            train(tmp_path, during(fresh(folder), step, kill), plan(*STEPS), KEEP, META, resume_minutes=0)
        point = load_resume(tmp_path)
        assert point is not None
        assert point.step == step - 1
        assert len(list((tmp_path / "resume").iterdir())) == 1
    train(tmp_path, fresh(folder), plan(*STEPS), KEEP, META, resume_minutes=0)
    assert left_by(tmp_path) == whole


def test_a_run_that_has_lost_a_checkpoint_says_so_and_makes_it_again(
    folder: Path, tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (4, 5):
        stopped = during(fresh(folder), step, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, stopped, plan(*STEPS), KEEP, META)
    assert "training goes on after step 4." in capsys.readouterr().out
    shutil.rmtree(tmp_path / "checkpoints/step_000003")
    train(tmp_path, fresh(folder), plan(*STEPS), KEEP, META)
    assert "its checkpoint step_000003 is gone, so training starts anew." in capsys.readouterr().out
    assert left_by(tmp_path) == whole


def test_a_resume_point_of_an_earlier_version_is_named_and_passed_over(
    folder: Path, tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    older = tmp_path / "resume/step_000003/optimiser.safetensors"
    older.parent.mkdir(parents=True)
    older.write_bytes(b"moments")
    train(tmp_path, fresh(folder), plan(*STEPS), KEEP, META)
    assert "its resume point is of an earlier version of forgetbench, so training starts anew." in (
        capsys.readouterr().out
    )
    assert left_by(tmp_path) == whole


def test_a_second_ctrl_c_stops_within_the_step(folder: Path, tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one was heeded later")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, during(fresh(folder), 2, twice), plan(*STEPS), KEEP, META)
    assert load_resume(tmp_path) is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_launchers_handler_is_called_once_the_point_is_kept_and_may_let_training_go_on(
    folder: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    seen: list[int] = []

    def handler(number: int, _: object) -> None:
        point = load_resume(tmp_path)
        assert point is not None
        seen.append(point.step)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        subject = during(fresh(folder), 2, lambda: signal.raise_signal(signal.SIGUSR2))
        train(tmp_path, during(subject, 5, lambda: signal.raise_signal(signal.SIGUSR2)), plan(*STEPS), KEEP, META)
        assert signal.getsignal(signal.SIGUSR2) is handler
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [2, 5]
    assert left_by(tmp_path) == whole


def test_what_is_ignored_stays_ignored(folder: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        train(tmp_path, during(fresh(folder), 2, lambda: signal.raise_signal(signal.SIGHUP)), plan(*STEPS), KEEP, META)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert left_by(tmp_path) == whole


def test_sigterm_ends_the_process_after_what_is_open_is_closed() -> None:
    program = """
import signal
from contextlib import closing
from forgetbench.training.interruption import DelayedSignals

class Log:
    def close(self):
        print("closed", flush=True)

with DelayedSignals() as signals, closing(Log()):
    signal.raise_signal(signal.SIGTERM)
    print("step done", flush=True)
    signals.deliver([signal.SIGTERM])
    print("went on", flush=True)
print("outlived", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n") == ["step done", "closed", ""]
    assert done.returncode == -signal.SIGTERM
    assert "SIGTERM: training stops after this step" in done.stderr


def test_a_slow_disk_takes_a_tenth_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now_s[0])
    clock = ResumeClock(minutes=5)

    def due_after(seconds: float) -> bool:
        now_s[0] += seconds
        return clock.is_due()

    assert [due_after(299), due_after(1)] == [False, True]
    with clock.writing():
        now_s[0] += 60
    assert [due_after(599), due_after(1)] == [False, True]
    with clock.writing():
        now_s[0] += 1
    assert [due_after(299), due_after(1)] == [False, True]
