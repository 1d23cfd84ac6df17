"""Commands that messages tell the reader to type."""

from __future__ import annotations

import shlex


def argument(key: str, value: object) -> str:
    """`key=value` as a shell takes it, in quotes where the value has blanks or signs that a shell reads."""
    return shlex.quote(f"{key}={value}")
