"""A value as Hydra's grammar of overrides writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORD = re.compile(r"[A-Za-z_][\w./:@-]*")


def as_text(value: Any) -> str:
    """Numbers, texts, lists and mappings as an override gives them; a text that is no plain word in quotes."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{as_text(key)}:{as_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_text, value)) + "]"
    if isinstance(value, str) and not _is_word(value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)


def _is_word(text: str) -> bool:
    return bool(_WORD.fullmatch(text)) and text.lower() not in {"null", "true", "false", "nan", "inf"}
