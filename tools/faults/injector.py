"""Count the operations of this process that change files below a folder, and make them fail from one of them on.

Python's audit events tell of every open, rename, removal and new folder, whichever library asks for it in Python. Files
opened for writing are opened as `_File`, so that every write system call counts as well. Libraries in C++ and Rust
write by themselves: `_NATIVE` lists their functions that forgetbench ends up in.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn


class Fault(StrEnum):
    """Kind of fault."""

    kill = "kill"
    """SIGKILL at one operation; of a write, half was written."""
    interrupt = "interrupt"
    """KeyboardInterrupt at one operation."""
    full = "full"
    """No space left, from one operation on; of the first write, half was written."""
    read_only = "read_only"
    """The file system is read-only, from one operation on."""


TAKES_SPACE = ("create", "mkdir", "link", "symlink", "write", "safetensors", "pyarrow")
"""Kinds of operations that a full disk refuses."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NATIVE = (
    ("safetensors.torch", "serialize_file", 1),
    ("pyarrow.parquet", "write_table", 1),
)
"""Module, function, and which of its arguments is the file."""


class Injector:
    """Counts the operations of this process; one process has one, for good."""

    def __init__(self, folder: Path, record: Path, fault: Fault | None = None, at: int = 0) -> None:
        """Say what to do; nothing is counted before `install`.

        Args:
            folder: operations below it count.
            record: a file elsewhere that gets a line per operation.
            fault: what goes wrong; None only counts.
            at: the number of the operation, from 1.
        """
        self._root = os.path.realpath(folder) + os.sep
        self._fault, self._at, self._n = fault, at, 0
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._is_tearing = False

    def install(self) -> None:
        """Begin to count."""
        shutil._USE_CP_SENDFILE = False  # type: ignore[attr-defined] # copies go through writes that are counted
        for module, name, place in _NATIVE:
            self._wrap(importlib.import_module(module), name, place)
        io.open = builtins.open = self._open  # type: ignore[assignment]
        sys.addaudithook(self._hear)

    def operation(self, kind: str, path: object, half: Callable[[], object] = lambda: None) -> None:
        """Count an operation that is about to happen, and let it fail if its time has come.

        Args:
            kind: of operation.
            path: what it changes.
            half: does half of it.
        """
        if self._is_tearing or not self.counts(path):
            return
        self._n += 1
        os.write(self._record, f"{kind} {str(path)[len(self._root) :]}\n".encode())
        lasts = self._fault in (Fault.full, Fault.read_only)
        if self._fault is None or self._n < self._at or (self._n > self._at and not lasts):
            return
        if self._fault is Fault.full and kind not in TAKES_SPACE:
            return
        if self._n == self._at and self._fault in (Fault.kill, Fault.full):
            self._is_tearing = True
            half()
            self._is_tearing = False
        self._fail(kind, path)

    def _fail(self, kind: str, path: object) -> NoReturn:
        if self._fault is Fault.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault is Fault.interrupt:
            raise KeyboardInterrupt
        number = errno.ENOSPC if self._fault is Fault.full else errno.EROFS
        if kind == "safetensors":
            raise _in_words(number)
        raise OSError(number, os.strerror(number), *([] if kind in ("write", "pyarrow") else [str(path)]))

    def counts(self, path: object) -> bool:
        """Whether an absolute path is in the folder."""
        return (str(path) + os.sep).startswith(self._root)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or path is None or not flags & _WRITES:
                return
            path = _absolute(path)
            self.operation("open" if os.path.lexists(path) else "create", path)
        elif event == "os.rename":
            path = _absolute(arguments[0], arguments[2])
            if os.path.lexists(path):
                self.operation("rename", path)
        elif event in ("os.remove", "os.rmdir"):
            path = _absolute(arguments[0], arguments[1])
            if os.path.lexists(path):
                self.operation(event[3:], path)
        elif event in ("os.mkdir", "os.symlink", "os.link"):
            path = _absolute(arguments[0 if event == "os.mkdir" else 1], arguments[-1])
            if not os.path.lexists(path):
                self.operation(event[3:], path)
        elif event in ("os.truncate", "os.utime", "os.chmod") and not isinstance(arguments[0], int):
            self.operation(event[3:], _absolute(arguments[0]))

    def _open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """As `open`, but a file below the folder that is written is a `_File` at the bottom."""
        path = "" if isinstance(file, int) else _absolute(file)
        if not set(mode) & set("wax+") or not self.counts(path):
            return _OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _File(self, path, mode.replace("b", "").replace("t", ""), closefd, opener)
        held: Any = raw if not buffering else (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return held
        text = io.TextIOWrapper(held, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode
        return text

    def _wrap(self, module: Any, name: str, place: int) -> None:
        """Count the calls of a function that writes a file in another language."""
        original, library = getattr(module, name), module.__name__.partition(".")[0]

        def counted(*given: Any, **named: Any) -> Any:
            path = Path(_absolute(given[place]))
            # Half of it is beside the file, for safetensors renames; or in its place, as pyarrow leaves it.
            torn = path.with_name(".tmpTORN") if library == "safetensors" else path

            def half() -> None:
                if self._fault is Fault.kill:  # the others remove it on their way out
                    original(*given[:place], torn, *given[place + 1 :], **named)
                    os.truncate(torn, torn.stat().st_size // 2)

            self.operation(library, path, half)
            return original(*given, **named)

        setattr(module, name, counted)


_OPEN = io.open


class _File(io.FileIO):
    """A file that counts its writes."""

    def __init__(self, injector: Injector, path: str, mode: str, closefd: bool, opener: Any) -> None:
        super().__init__(path, mode, closefd, opener)
        self._injector, self._path, self._short = injector, path, 0

    def write(self, data: Any, /) -> int:
        """Write; a full disk takes half before it refuses, as the system does."""
        half = memoryview(data)[: len(data) // 2]
        self._injector.operation("write", self._path, lambda: super(_File, self).write(half))
        return super().write(data)


def _absolute(path: Any, folder: int = -1) -> str:
    """A path as it is whatever folder it was relative to; links are left as they are, but for those above it."""
    above = Path.cwd() if folder < 0 else Path(f"/proc/self/fd/{folder}").readlink()
    return os.path.normpath(above / os.fsdecode(path))


def _in_words(number: int) -> Exception:
    """The exception of safetensors, which is no OSError; pyarrow's is one, but without the file's name."""
    from safetensors import SafetensorError

    return SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
