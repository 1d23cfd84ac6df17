"""Read JSON files that other programs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError, reading

AGAIN = "copy or download it again"
MOST_BYTES = 2**26
"""Of a file of settings; the largest have some megabytes."""


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    check_file(path)
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, which no file of settings has; {AGAIN}.")
    with reading(path, AGAIN):
        content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__} where an object is expected; {AGAIN}.")
    return content


def check_file(path: Path) -> None:
    """Refuse what is no file on a disk: reading a FIFO or a device may never end.

    Raises:
        UserError: a folder, FIFO, device or a link that leads nowhere is in its place.
    """
    with reading(path, AGAIN):
        is_file = path.is_file()
    if not is_file:
        raise UserError(f"{path} is no file; {AGAIN}.")
