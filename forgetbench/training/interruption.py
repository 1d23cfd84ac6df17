"""When a run writes down where it stands: after some minutes, and when a signal asks its process to stop.

A signal waits until the optimiser step is done and the resume point is written; then it does what it would have done
at once. Slurm, torchrun, Ray and submitit's requeueing know nothing of it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""End a process that does not catch them."""
_ONLY_IF_CAUGHT = (signal.SIGUSR1, signal.SIGUSR2)
"""A launcher's warning that the time is up; nothing to wait for, if nobody catches it."""
_SIGNALS = (*_ENDING, *_ONLY_IF_CAUGHT)
_SHARE = 10
"""Writing resume points takes a tenth of the time at most, however large they are and however slow the disk."""


class StoppedError(BaseException):
    """A signal whose default is to end the process; no error that anybody handles."""


class ResumeClock:
    """Tells when the next resume point is due."""

    def __init__(self, minutes: float) -> None:
        """Start now; after every step, if `minutes` is 0."""
        self._pause_s, self._took_s, self._since_s = 60 * minutes, 0.0, time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time."""
        pause_s = max(self._pause_s, _SHARE * self._took_s) if self._pause_s else 0.0
        return time.monotonic() - self._since_s >= pause_s

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around the writing of one."""
        started_s = time.monotonic()
        yield
        self._since_s = time.monotonic()
        self._took_s = self._since_s - started_s


class DelayedSignals:
    """Signals that came during a step, as long as the context is open; the same one again acts at once."""

    def __init__(self) -> None:
        """Catch nothing yet."""
        self._before: dict[int, Any] = {}
        self._waiting: list[int] = []

    def __enter__(self) -> DelayedSignals:
        """Catch what asks to stop; what is ignored stays ignored."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if callable(before) or (before is signal.SIG_DFL and number in _ENDING):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """Put everything back, and let what still waits act."""
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind in (None, StoppedError):
            for number in self._waiting:
                signal.raise_signal(number)
        return kind is StoppedError

    def waiting(self, accelerator: Accelerator, *flags: bool) -> tuple[list[int], list[bool]]:
        """What came to any process of the run, and flags that any of them raised; every process must ask."""
        raised = [*(number in self._waiting for number in _SIGNALS), *flags]
        if accelerator.num_processes > 1:
            counts = accelerator.reduce(torch.tensor(raised, device=accelerator.device).int(), "sum")
            raised = [count > 0 for count in counts.tolist()]
        came = [int(number) for number, one in zip(_SIGNALS, raised, strict=False) if one]
        return came, raised[len(_SIGNALS) :]

    def act(self, numbers: Sequence[int]) -> None:
        """Let signals do what they would have done; training goes on if a handler of somebody else returns.

        Raises:
            StoppedError: one of them ends the process; it does so when the context closes.
        """
        for number in numbers:
            before = self._before.get(number, signal.SIG_DFL)
            if not callable(before):
                self._waiting = [number]
                raise StoppedError
            self._waiting = [one for one in self._waiting if one != number]
            signal.signal(number, before)
            signal.raise_signal(number)
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number in self._waiting:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        self._waiting.append(number)
        if os.environ.get("RANK", "0") == "0":
            again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            name = signal.Signals(number).name
            # A handler must not use Python's buffered streams, which it may have interrupted.
            with suppress(OSError):
                os.write(2, f"\n{name}: training stops after this step and keeps where it stands{again}.\n".encode())
