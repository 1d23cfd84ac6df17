"""Values of environment variables that are secrets: no file and no message may hold one."""

from __future__ import annotations

import os
import re
from functools import lru_cache

_NAMES = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|KEY(S|_ID)?$|_KEY_", re.IGNORECASE)
_PLACES = re.compile(r"(_|^)(PATH|FILE|DIR|HOME|SOCK|URL)$", re.IGNORECASE)
"""Variables with these endings say where a secret is, and hold none."""
_SHORTEST = 8
"""Characters; shorter values are those of switches."""


def is_secret(name: str) -> bool:
    """Whether a variable is called like a token, a key, a secret or a password."""
    return bool(_NAMES.search(name)) and not _PLACES.search(name)


def held_secret(text: str) -> str | None:
    """The variable whose value stands in a text; None where there is none."""
    return next((name for name, value in _secrets(tuple(os.environ.items())) if value in text), None)


def without_secrets(text: str) -> str:
    """The text with the name of the variable in place of each secret value."""
    for name, value in _secrets(tuple(os.environ.items())):
        text = text.replace(value, f"<{name}>")
    return text


@lru_cache(maxsize=1)
def _secrets(variables: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    secrets = [(name, value) for name, value in variables if len(value) >= _SHORTEST and is_secret(name)]
    return sorted(secrets, key=lambda secret: -len(secret[1]))  # a value may be a part of another
