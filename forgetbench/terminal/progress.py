"""Progress of a command: a bar in a terminal; lines on standard error where results go to a file or a pipe.

A line comes at the first piece of work, then every ten seconds, and every minute once a command runs for long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from forgetbench.terminal.console import console

T_co = TypeVar("T_co", covariant=True)

Advance = Callable[[str, int], None]
"""Called with a label of the work at hand and the number of pieces just done."""
_FIRST_PAUSE_S, _LAST_PAUSE_S, _SHARE = 10.0, 60.0, 20


class SizedIterable(Sized, Iterable[T_co], Protocol[T_co]):
    """An iterable with a known length."""


class _Lines:
    def __init__(self, title: str, total: int, unit: str, done: int, at_once: bool) -> None:
        self._title, self._total, self._unit, self._done = title, total, unit, done
        self._started_s = time.monotonic()
        self._next_s = self._started_s + (0 if at_once else _FIRST_PAUSE_S)

    def advance(self, label: str, n: int) -> None:
        self._done += n
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        passed_s = now_s - self._started_s
        self._next_s = now_s + min(max(_FIRST_PAUSE_S, passed_s / _SHARE), _LAST_PAUSE_S)
        parts = [f"{self._done:,} of {self._total:,} {self._unit}", *([label] if label else []), f"{passed_s:.0f} s"]
        say_progress(f"{self._title}: {', '.join(parts)}")


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0, at_once: bool = True) -> Iterator[Advance]:
    """Show how far a piece of work is, as long as the context is open.

    Args:
        title: what is done, and to what.
        total: pieces of it.
        unit: what a piece is, in the plural.
        done: pieces that were done before.
        at_once: write a line at the first piece; otherwise only once it has taken some seconds.
    """
    if not console.is_terminal or console.quiet:
        yield _Lines(title, total, unit, done, at_once).advance
        return
    columns = (TextColumn("[bold]{task.fields[title]}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(
        *columns, TextColumn("{task.description}", markup=False), TimeRemainingColumn(), console=console, transient=True
    ) as bars:
        task = bars.add_task("", total=total, completed=done, title=title)
        yield lambda label, n: bars.update(task, advance=n, description=label)


def tracked(items: SizedIterable[T_co], title: str, unit: str, bar_from: int = 1) -> Iterator[T_co]:
    """Go through items and show how far it is, if that takes some seconds.

    Args:
        items: what is gone through.
        title: what is done.
        unit: what an item is, in the plural.
        bar_from: items from which on a terminal shows a bar.
    """
    if console.is_terminal and len(items) < bar_from:
        yield from items
        return
    with progress(title, len(items), unit, at_once=False) as advance:
        for item in items:
            yield item
            advance("", 1)


def working(what: str) -> AbstractContextManager[object]:
    """Show what is being done, where its length is unknown."""
    if console.is_terminal and not console.quiet:
        return console.status(what)
    say_progress(what)
    return nullcontext()


def say_progress(line: str) -> None:
    """A line for who reads a log; nothing in a terminal, which has a bar."""
    if not console.is_terminal and not console.quiet:
        print(line, file=sys.stderr, flush=True)
