"""Check the texts of items: characters that tokenizers, tables or terminals cannot hold, empty cells, blank options."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from forgetbench.core.records import ImageRef, Sample

_UNSAFE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
"""Control characters other than blanks."""
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")
"""Unicode categories of control, format and blank characters."""
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0\ufe0e\ufe0f"
"""Invisible characters that Unicode counts among letters and marks."""
_EMPTY_MARKUP = re.compile(
    r"<([a-zA-Z][\w-]*)[^<>]*>\s*</\1\s*>|<br\s*/?>|&nbsp;|&#160;|&#xa0;"
    r"|\\(?:text|mathrm|mathbf|textbf|textit|mbox|boxed)\{\s*\}|\\\(\s*\\\)|\\\[\s*\\\]",
    re.IGNORECASE,
)
"""Tags, entities and LaTeX around nothing."""


def nan_to_none(value: Any) -> Any:
    """A row or part of it with NaN, which tables hold in empty cells, replaced by None."""
    if isinstance(value, float):
        return None if value != value else value  # noqa: PLR0124
    if isinstance(value, dict):
        return {key: nan_to_none(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [nan_to_none(inner) for inner in value]
    return value


def printable(text: str) -> str:
    """A text for a message: lone surrogates and control characters are escaped."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", safe)


def check_texts(sample: Sample) -> None:
    """Refuse texts that tokenizers, tables or terminals fail on.

    Raises:
        ValueError: a text holds a lone surrogate or NUL; or the id or an option holds a control character.
    """
    for field_name, text in _texts(sample):
        if match := _UNSAFE.search(text):
            character = "the character NUL" if match[0] == "\0" else f"half a character (\\u{ord(match[0]):04x})"
            raise ValueError(f"its {field_name} holds {character}; put in what was meant, or leave the record out")
    for field_name, text in [("id", sample.id), *(("option", option) for option in sample.options)]:
        if match := _CONTROL.search(text):
            raise ValueError(f"its {field_name} holds the control character U+{ord(match[0]):04X}; take it out")


def _texts(sample: Sample) -> Iterator[tuple[str, str]]:
    yield "id", sample.id
    yield "answer", sample.answer
    for name in ("options", "references", "clusters"):
        yield from ((name.removesuffix("s"), text) for text in getattr(sample, name))
    yield "class_name", sample.class_name
    for turn in sample.turns:
        for part in turn.parts:
            yield ("picture's name", part.name) if isinstance(part, ImageRef) else (f"{turn.speaker} turn", part)


def is_invisible(text: str) -> bool:
    """Whether a reader would see nothing: only blanks, invisible characters or empty markup."""
    if text.isascii() and not set(text) & set("<&\\"):
        return not text.strip()
    previous = None
    while previous != text:
        previous, text = text, _EMPTY_MARKUP.sub("", text)
    return all(unicodedata.category(character) in _UNSEEN or character in _FILLERS for character in text)


def visible_text(text: str) -> str:
    """Normalise a text, so that two texts that look the same are equal: composed characters, single blanks."""
    if text.isascii():
        return " ".join(text.split())
    composed = unicodedata.normalize("NFC", text)
    return " ".join("".join(character for character in composed if unicodedata.category(character) != "Cf").split())
