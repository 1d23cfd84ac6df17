"""Read JSON files that other programs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); copy it again from where training ran.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__} where an object is expected.")
    return content
