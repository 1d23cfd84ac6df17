"""Entries that are kept on disk between commands: written whole, checked when read, made again where damaged.

An entry is a file or a folder that carries a checksum, where its format has room for one; its reader verifies it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from forgetbench.core.errors import UserError
from forgetbench.core.files import clear_once, drop_leftover, replacing, temporaries

T = TypeVar("T")

_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading other content raises in plain Python. No OSError: a disk that fails is not a file to be given up."""


def checksum(content: bytes) -> str:
    """sha256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_checksum(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return checksum(json.dumps(value, sort_keys=True).encode())


def verify(expected: object, actual: object) -> None:
    """Compare what an entry records about itself with its actual content.

    Raises:
        ValueError: they differ.
    """
    if expected != actual:
        raise ValueError("it is not as it was written")


def say_damaged(what: object, remedy: str = "it is made again") -> None:
    """Report a damaged entry on stderr."""
    print(f"{what} is damaged; {remedy}.", file=sys.stderr)


class Store:
    """The entries of one kind in one folder, by name; processes and commands may share it."""

    def __init__(self, folder: Path, suffix: str = "", damage: tuple[type[Exception], ...] = ()) -> None:
        """Use a folder, which need not be there.

        Args:
            folder: where entries are.
            suffix: of their names on disk.
            damage: further errors that reading a damaged entry raises, such as a library's.
        """
        self._folder, self._suffix = folder, suffix
        self._damage: tuple[type[Exception], ...] = (*_DAMAGE, *damage)

    def path(self, name: str) -> Path:
        """Where an entry is, whether or not it exists.

        Raises:
            UserError: the name leads to another folder.
        """
        if Path(name).name != name or "\\" in name:
            raise UserError(f"{name!r} is no name of an entry of {self._folder}; make the table that holds it again.")
        return self._folder / f"{name}{self._suffix}"

    def names(self) -> list[str]:
        """Entries that are there."""
        return sorted(path.name.removesuffix(self._suffix) for path in self._folder.glob(f"*{self._suffix}"))

    def read(self, name: str, load: Callable[[Path], T], remedy: str = "it is made again") -> T | None:
        """An entry; None if it is absent or damaged (which is said on stderr).

        Args:
            name: the entry.
            load: reads and verifies it.
            remedy: what happens to a damaged one.
        """
        path = self.path(name)
        if not path.exists():
            return None
        try:
            if not (path.is_file() or path.is_dir()):
                raise ValueError("a pipe or a device, which may never end")
            return load(path)
        except self._damage:
            say_damaged(path, remedy)
            return None

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a temporary path; on success it takes the entry's place."""
        with replacing(self.path(name)) as temporary:
            yield temporary

    @contextmanager
    def locked(self, name: str, wait_s: float = -1) -> Iterator[bool]:
        """Hold an entry's lock; yields False if another process still holds it after `wait_s`, -1 waits for ever."""
        lock = self._lock(name)
        lock.parent.mkdir(parents=True, exist_ok=True)
        file_lock = FileLock(lock)
        try:
            file_lock.acquire(timeout=wait_s)
        except Timeout:
            yield False
            return
        try:
            if self.path(name).exists():
                clear_once(self._folder)
            else:
                for path in temporaries(self.path(name)):
                    drop_leftover(path)
            yield True
        finally:
            if self.path(name).exists():  # an entry that exists needs no lock
                lock.unlink(missing_ok=True)
            file_lock.release()

    def remove_leftovers(self, name: str) -> None:
        """Remove the lock and the leftovers of an entry that exists."""
        self._lock(name).unlink(missing_ok=True)
        clear_once(self._folder)

    def _lock(self, name: str) -> Path:
        return self.path(name).with_suffix(".lock")
