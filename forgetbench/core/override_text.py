"""A value as Hydra's grammar of overrides writes it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

_BEFORE_QUOTE = re.compile(r"(\\*)('|\Z)")
_WORD = re.compile(r"[A-Za-z_][\w./:@-]*")


def as_text(value: Any) -> str:
    """Numbers, texts, paths, lists and mappings as an override gives them; a text that is no plain word in quotes."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{as_text(key)}:{as_text(element)}" for key, element in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_text, value)) + "]"
    if isinstance(value, os.PathLike):
        return as_text(os.fsdecode(value))
    return in_quotes(value) if isinstance(value, str) and not _is_word(value) else str(value)


def in_quotes(text: str) -> str:
    """A text between quotes of Hydra's grammar, in which a backslash means itself unless a quote follows."""
    return "'{}'".format(_BEFORE_QUOTE.sub(lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text))


def _is_word(text: str) -> bool:
    return bool(_WORD.fullmatch(text)) and text.lower() not in {"null", "true", "false", "nan", "inf"}
