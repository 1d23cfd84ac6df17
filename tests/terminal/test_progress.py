"""How far a command is: lines on standard error in a pipe, at moments that only the clock decides."""

from __future__ import annotations

import pytest
from rich.console import Console

from forgetbench.terminal import progress as module
from forgetbench.terminal.progress import progress, say_progress, tracked, working


class Clock:
    """The seconds that the module sees."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "console", Console(force_terminal=False))
    return clock


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()


def test_a_pipe_gets_the_first_piece_and_then_a_line_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("training run", 2_000, "steps", done=1_000) as advance:
        for step in range(25):
            clock.now_s += 1
            advance(f"loss {step}", 1)
    assert lines_of(capsys) == [
        "training run: 1,001 of 2,000 steps, loss 0, 1 s",
        "training run: 1,011 of 2,000 steps, loss 10, 11 s",
        "training run: 1,021 of 2,000 steps, loss 20, 21 s",
    ]


def test_a_day_has_at_most_a_line_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("training run", 86_400, "steps") as advance:
        for _ in range(86_400):
            clock.now_s += 1
            advance("", 1)
    assert 1_300 < len(lines_of(capsys)) < 1_600


def test_what_takes_no_time_is_not_told(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked([1, 2, 3], "reading", "items")) == [1, 2, 3]
    assert lines_of(capsys) == []
    for _ in tracked([1, 2, 3], "reading", "items"):
        clock.now_s += 6
    assert lines_of(capsys) == ["reading: 2 of 3 items, 12 s"]


@pytest.mark.parametrize("shown", [Console(force_terminal=False, quiet=True), Console(force_terminal=True)])
def test_a_quiet_process_and_a_terminal_get_no_lines(
    shown: Console, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "console", shown)
    with progress("training", 2, "steps") as advance:
        advance("", 1)
    with working("drawing"):
        say_progress("a point")
    assert list(tracked([1], "reading", "items")) == [1]
    assert capsys.readouterr().err == ""
