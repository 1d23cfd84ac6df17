"""Limits of time and memory for what a file of somebody else's makes us compute: templates, patterns."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 3.0
"""Of computing; templates and patterns of published models take milliseconds."""
MEMORY = 2**30
_PAGES = Path("/proc/self/statm")


class _OutOfTimeError(BaseException):
    """No Exception, so that what tries a template does not take it for one of the template's own."""


@contextmanager
def limited() -> Iterator[None]:
    """Stop what is done inside when it takes more time or memory than such a thing needs.

    Only the main thread can be stopped, and only where the system knows such limits.

    Raises:
        ValueError: it took too long.
        MemoryError: it asked for too much memory.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with _memory():
            yield
    except _OutOfTimeError:
        raise ValueError(f"takes more than {SECONDS:g} seconds") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop(*_: object) -> None:
    raise _OutOfTimeError


@contextmanager
def _memory() -> Iterator[None]:
    """Let the process take only so much more memory; what asks for more gets a MemoryError."""
    if not _PAGES.is_file():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(_PAGES.read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    known = [limit for limit in (taken + MEMORY, *before) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(known), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
