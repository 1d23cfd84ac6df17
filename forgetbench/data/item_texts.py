"""Texts of items: what no tokenizer, table or terminal can hold, cells that are absent, options that show nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from forgetbench.core.records import ImageRef, Sample

_UNSAFE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
"""Control characters that are no blanks."""
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")
"""Unicode's categories of controls, of marks of layout and of blanks."""
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0\ufe0e\ufe0f"
"""Characters that show nothing though Unicode counts them among letters and marks."""
_EMPTY_MARKUP = re.compile(
    r"<([a-zA-Z][\w-]*)[^<>]*>\s*</\1\s*>|<br\s*/?>|&nbsp;|&#160;|&#xa0;"
    r"|\\(?:text|mathrm|mathbf|textbf|textit|mbox|boxed)\{\s*\}|\\\(\s*\\\)|\\\[\s*\\\]",
    re.IGNORECASE,
)
"""Tags, entities and LaTeX around nothing."""


def without_absent(value: Any) -> Any:
    """A row or a part of it with None where a table holds NaN, its word for an empty cell."""
    if isinstance(value, float):
        return None if value != value else value  # noqa: PLR0124
    if isinstance(value, dict):
        return {key: without_absent(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_absent(one) for one in value]
    return value


def printable(text: str) -> str:
    """A text as a message can show it: halves of characters and control characters as escapes."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", safe)


def check_texts(sample: Sample) -> None:
    """Refuse texts that tokenizers, tables or terminals fail on.

    Raises:
        ValueError: one holds half a character or a NUL; or its id or an option holds a control character.
    """
    for what, text in _texts(sample):
        if found := _UNSAFE.search(text):
            held = "the character NUL" if found[0] == "\0" else f"half a character (\\u{ord(found[0]):04x})"
            raise ValueError(f"its {what} holds {held}; put in what was meant, or leave the record out")
    for what, text in [("id", sample.id), *(("option", option) for option in sample.options)]:
        if found := _CONTROL.search(text):
            raise ValueError(f"its {what} holds the control character U+{ord(found[0]):04X}; take it out")


def _texts(sample: Sample) -> Iterator[tuple[str, str]]:
    yield "id", sample.id
    yield "answer", sample.answer
    for name in ("options", "references", "clusters"):
        yield from ((name.removesuffix("s"), text) for text in getattr(sample, name))
    yield "class_name", sample.class_name
    for turn in sample.turns:
        for part in turn.parts:
            yield ("picture's name", part.name) if isinstance(part, ImageRef) else (f"{turn.speaker} turn", part)


def shows_nothing(text: str) -> bool:
    """Whether a reader would see nothing: blanks, invisible characters, markup around nothing."""
    if text.isascii() and not set(text) & set("<&\\"):
        return not text.strip()
    before = None
    while before != text:
        before, text = text, _EMPTY_MARKUP.sub("", text)
    return all(unicodedata.category(one) in _UNSEEN or one in _FILLERS for one in text)


def as_seen(text: str) -> str:
    """What two texts that a reader cannot tell apart have in common: composed, visible characters, single blanks."""
    if text.isascii():
        return " ".join(text.split())
    composed = unicodedata.normalize("NFC", text)
    return " ".join("".join(one for one in composed if unicodedata.category(one) != "Cf").split())
