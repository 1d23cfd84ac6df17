"""Write files so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forgetbench.core.errors import reading

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
