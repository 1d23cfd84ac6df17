"""Write files so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError

_LEFTOVER = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(?:tmp|old)")
"""What a kill leaves of `replacing`."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, such as safetensors and tokenizers, say in words what the operating system refused."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes its place, on failure it is removed.

    Raises:
        OSError: the disk is full, or whatever else the operating system refuses, whichever library was told.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            # A folder cannot be replaced in one call; step the old one aside first.
            aside = temporary.with_suffix(".old")
            path.rename(aside)
            temporary.rename(path)
            shutil.rmtree(aside)
        else:
            temporary.replace(path)
    except Exception as error:
        if not isinstance(error, OSError) and (found := _OS_ERROR.search(str(error))):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def remove_all(paths: Iterable[Path], root: Path) -> None:
    """Remove files below a folder, those of them that are there, and the folders below it that this leaves empty."""
    for path in paths:
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if root not in parent.parents:
                break
            with suppress(OSError):  # it holds something else, or is not there
                parent.rmdir()


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove what a kill left of `replacing` in a folder, where nobody else can be writing now.

    Args:
        folder: need not be there.
        names: of what was being written; anything, if none is given.
    """
    for path in folder.glob(".*"):
        found = _LEFTOVER.fullmatch(path.name)
        if found and (not names or found[1] in names):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def read_json(path: Path) -> Any:
    """Read JSON that forgetbench wrote.

    Raises:
        UserError: the file is not there, or was damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or delete its folder and run again.") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted, indented."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """JSON as it is written everywhere: keys sorted, indented."""
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"
