"""Write files so that a reader sees the old content or the new, never half of it.

While a file is made, it has a temporary name beside its place, such as `.scores.csv.1f0c9a3e-4711-08d2b7aa.tmp`:
machine, process and a random number. So the next command can tell leftovers of a killed process from the files that
another process is writing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any

from forgetbench.core.errors import NOT_WRITABLE, UserError, reading

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""An operating system's error in a message of a Rust library, such as safetensors or tokenizers."""
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.(?P<kind>tmp|old)")
_FOREIGN_S = 3600.0
"""Seconds untouched after which another machine's file is a leftover; whether its process runs cannot be seen."""
_being_made: set[str] = set()
"""Names, without their last suffix, of files that this process is making."""
_cleared: set[str] = set()
"""Folders where this process has looked for leftovers."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes its place, on failure it is removed.

    Raises:
        OSError: the disk is full, or the operating system refuses something else, in any library; it names `path`.
    """
    with _temporary(path) as temporary, naming(path, temporary.name):
        yield temporary
        _put(temporary, path)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` that is gone afterwards; after a kill, the next command removes it."""
    with _temporary(path) as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside `path` for something that is removed in the end, if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_once(path.parent)
    temporary = path.with_name(f".{path.name}.{_machine_id()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    _being_made.add(temporary.stem)
    try:
        yield temporary
    finally:
        with suppress(OSError):  # on a disk that fails it is the next command's
            drop_leftover(temporary)
            drop_leftover(temporary.with_suffix(".old"))
        _being_made.discard(temporary.stem)


def _put(temporary: Path, path: Path) -> None:
    if temporary.is_dir() and path.is_dir():
        # A folder cannot be replaced in one call; move the old one aside first.
        path.rename(temporary.with_suffix(".old"))
    temporary.replace(path)


@contextmanager
def naming(path: Path, temporary: str = "") -> Iterator[None]:
    """Turn what libraries raise about a disk that takes no more into an OSError that names the file.

    Args:
        path: that is written.
        temporary: part of the names that it has while it is made.

    Raises:
        OSError: the disk is full, or whatever else the operating system refuses.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        is_named = error.filename is not None and not (temporary and temporary in str(error.filename))
        if is_named or error.errno not in NOT_WRITABLE:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except Exception as error:
        if match := _OS_ERROR.search(str(error)):
            raise OSError(int(match[1]), os.strerror(int(match[1])), str(path)) from error
        raise


def clear_once(folder: Path) -> None:
    """Remove what killed processes left in a folder, unless this process has done so."""
    name = str(folder.absolute())
    if name not in _cleared:
        _cleared.add(name)
        remove_leftovers(folder)


def remove_leftovers(*folders: Path) -> None:
    """Remove leftovers of killed processes in some folders, and restore old folders that one had moved aside.

    Files of running processes stay. Leftovers of another machine go an hour after their last change.
    """
    for folder in folders:
        with suppress(OSError):  # not there, or not writable, which writing there reports
            for path in sorted(folder.iterdir()):
                match = _TEMPORARY.fullmatch(path.name)
                if match and _is_leftover(path, match):
                    drop_leftover(path)


def drop_leftover(path: Path) -> None:
    """Remove a temporary file or folder; restore an old version whose replacement is missing."""
    match = _TEMPORARY.fullmatch(path.name)
    with suppress(FileNotFoundError):  # another command was faster
        if match and match["kind"] == "old" and not (place := path.with_name(match["name"])).exists():
            path.rename(place)
        else:
            _remove(path)


def temporaries(path: Path) -> list[Path]:
    """What is being made, or was left, in order to take the place of `path`."""
    candidates = path.parent.glob(f".{escape(path.name)}.*")
    return [
        candidate
        for candidate in candidates
        if (match := _TEMPORARY.fullmatch(candidate.name)) and match["name"] == path.name
    ]


def _is_leftover(path: Path, match: re.Match[str]) -> bool:
    """Whether no process can be writing it."""
    if match["machine"] != _machine_id():
        return time.time() - _last_change_s(path) >= _FOREIGN_S
    process = int(match["process"])
    return path.stem not in _being_made if process == os.getpid() else not _is_running(process)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _last_change_s(path: Path) -> float:
    """When a file, or anything in a folder, was last changed."""
    return max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))


@cache
def _machine_id() -> str:
    """A digest of the machine and its process namespace: processes of two containers do not see each other."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_all(paths: Iterable[Path], root: Path) -> None:
    """Remove those files below a folder that exist, and the folders that this leaves empty."""
    for path in paths:
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if root not in parent.parents:
                break
            with suppress(OSError):  # it holds something else, or is not there
                parent.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def read_json(path: Path) -> Any:
    """Read JSON that forgetbench wrote.

    Raises:
        UserError: the file is not there, or was damaged.
    """
    with reading(path, "restore it, or delete its folder and run again"):
        if path.exists() and not path.is_file():  # a FIFO never ends
            raise FileNotFoundError("it is no file")
        return json.loads(path.read_text("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted, indented."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """JSON as it is written everywhere: keys sorted, indented."""
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"
