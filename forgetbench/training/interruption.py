"""When a run writes a resume point: every few minutes, and when a signal asks its process to stop.

A signal waits until the optimiser step is done and the resume point is written; then it has its usual effect. Slurm,
torchrun, Ray and submitit's requeueing need no support for it.
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
"""Signals that end a process unless it catches them."""
_ONLY_IF_CAUGHT = (signal.SIGUSR1, signal.SIGUSR2)
"""A launcher's warning that time is running out; delayed only if a handler catches it."""
_SIGNALS = (*_ENDING, *_ONLY_IF_CAUGHT)
_PAUSE_FACTOR = 10
"""The pause between resume points is at least ten times the time that writing one takes."""


class StoppedError(BaseException):
    """Ends the run because of a signal. A BaseException, so that no handler of errors catches it."""


class ResumeClock:
    """Decides when the next resume point is due."""

    def __init__(self, minutes: float) -> None:
        """Start counting now; with 0 minutes a resume point is due after every step."""
        self._pause_s, self._took_s, self._since_s = 60 * minutes, 0.0, time.monotonic()

    def is_due(self) -> bool:
        """Whether a resume point is due."""
        pause_s = max(self._pause_s, _PAUSE_FACTOR * self._took_s) if self._pause_s else 0.0
        return time.monotonic() - self._since_s >= pause_s

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wrap the writing of a resume point, to measure its duration."""
        started_s = time.monotonic()
        yield
        self._since_s = time.monotonic()
        self._took_s = self._since_s - started_s


class DelayedSignals:
    """Context that delays signals to the end of a step; the same signal a second time acts at once."""

    def __init__(self) -> None:
        """Catch nothing yet."""
        self._handlers: dict[int, Any] = {}
        self._waiting: list[int] = []

    def __enter__(self) -> DelayedSignals:
        """Catch the signals that ask to stop; ignored signals stay ignored."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if callable(before) or (before is signal.SIG_DFL and number in _ENDING):
                    self._handlers[number] = before
                    signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """Restore the handlers and raise the signals that are still waiting."""
        for number, before in self._handlers.items():
            signal.signal(number, before)
        if kind in (None, StoppedError):
            for number in self._waiting:
                signal.raise_signal(number)
        return kind is StoppedError

    def pending(self, accelerator: Accelerator, *flags: bool) -> tuple[list[int], list[bool]]:
        """Signals that any process of the run received, and flags that any process set; all processes must call it."""
        raised = [*(number in self._waiting for number in _SIGNALS), *flags]
        if accelerator.num_processes > 1:
            counts = accelerator.reduce(torch.tensor(raised, device=accelerator.device).int(), "sum")
            raised = [count > 0 for count in counts.tolist()]
        came = [int(number) for number, is_raised in zip(_SIGNALS, raised, strict=False) if is_raised]
        return came, raised[len(_SIGNALS) :]

    def deliver(self, numbers: Sequence[int]) -> None:
        """Give signals their usual effect; training continues if the earlier handler returns.

        Raises:
            StoppedError: a signal ends the process, which happens when the context closes.
        """
        for number in numbers:
            before = self._handlers.get(number, signal.SIG_DFL)
            if not callable(before):
                self._waiting = [number]
                raise StoppedError
            self._waiting = [other for other in self._waiting if other != number]
            signal.signal(number, before)
            signal.raise_signal(number)
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number in self._waiting:
            signal.signal(number, self._handlers[number])
            signal.raise_signal(number)
        self._waiting.append(number)
        if os.environ.get("RANK", "0") == "0":
            again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            name = signal.Signals(number).name
            # A handler must not use Python's buffered streams, which it may have interrupted.
            with suppress(OSError):
                os.write(2, f"\n{name}: training stops after this step and keeps where it stands{again}.\n".encode())
