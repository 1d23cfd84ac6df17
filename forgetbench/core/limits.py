"""Limits of time and memory for what untrusted files make us compute: templates, patterns."""

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
    """No Exception, so that code that tries a template does not catch it as the template's error."""


@contextmanager
def limited() -> Iterator[None]:
    """Stop the code inside when it takes too much time or memory.

    Only the main thread can be stopped, and only where the system knows such limits.

    Raises:
        ValueError: it took too long.
        MemoryError: it asked for too much memory.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    old_handler = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with _memory():
            yield
    except _OutOfTimeError:
        raise ValueError(f"takes more than {SECONDS:g} seconds") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old_handler)


def _stop(*_: object) -> None:
    raise _OutOfTimeError


@contextmanager
def _memory() -> Iterator[None]:
    """Cap the memory that the process may add; beyond it, a MemoryError is raised."""
    if not _PAGES.is_file():
        yield
        return
    import resource

    old_limits = resource.getrlimit(resource.RLIMIT_AS)
    used_bytes = int(_PAGES.read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    finite_limits = [limit for limit in (used_bytes + MEMORY, *old_limits) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(finite_limits), old_limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old_limits)
