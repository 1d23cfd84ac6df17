"""One command at a time writes a folder: a hidden lock beside it, which the system frees when its holder dies."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from forgetbench.core.files import naming, remove_leftovers
from forgetbench.core.processes import ProcessGroup

_TURN_S = 20.0
"""The other processes of a command must not wait in silence for long."""


@contextmanager
def only_command(folder: Path, process_group: ProcessGroup | None = None, waits: bool = True) -> Iterator[bool]:
    """Be the only command that writes a folder; a second command says which process it waits for, and waits.

    Args:
        folder: need not be there.
        process_group: the processes of this command, all of which must ask; the main one holds the lock.
        waits: otherwise go on at once.

    Yields:
        Whether this command is the only one, which it always is if it waits.
    """
    # Not `Path.resolve`, which raises for links that lead to themselves; those are refused later.
    group, target = process_group or ProcessGroup(), Path(os.path.realpath(folder))
    lock = target.with_name(f".{target.name}.lock")
    holder = lock.with_suffix(".holder")
    file_lock, wait_s = FileLock(lock), 0.0
    if group.is_main:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with naming(folder, lock.name):
            lock.touch()  # filelock waits for ever where no file can be made, as in /proc
    while not group.broadcast(group.is_main and _try_acquire(file_lock, wait_s)):
        if not waits:
            yield False
            return
        if group.is_main and not wait_s:
            message = (
                f"{folder}: {_holder_name(holder)} is at work on it; this one waits for it to end (Ctrl-C gives up)."
            )
            print(message, file=sys.stderr)
        wait_s = _TURN_S
    if not group.is_main:
        yield True
        return
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%d %b %H:%M')},")
        remove_leftovers(target.parent)
        yield True
    finally:
        holder.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)  # whoever waits for a file that is gone tries the next one
        file_lock.release()


def _try_acquire(lock: FileLock, wait_s: float) -> bool:
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        return False
    return True


def _holder_name(holder: Path) -> str:
    """The holder of a lock, from its holder file."""
    with suppress(OSError, ValueError):
        return holder.read_text("utf-8") or "another command"
    return "another command"
