"""Standard output and error that take any text, and show control sequences instead of passing them on."""

from __future__ import annotations

import codecs
import re
import sys
from typing import Any

from forgetbench.core.secrets import without_secrets

_STAND_INS = {"±": "+-", "…": "~", "━": "-", "╸": "-", "╺": "-"}
"""Replacements for the signs of tables and bars; other letters are escaped, so that names stay distinct."""
_ERRORS = "forgetbench_stand_ins"
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters and marks of direction: they move the cursor, colour, retitle or reorder what is shown."""
_BAR_CONTROL = re.compile(r"[\r\n]*(?:\x1b\[A)*")
"""What libraries write on its own to move up to a progress bar."""


def visible(text: str) -> str:
    r"""The text with its control characters and marks of direction as Python writes them, such as `\x1b`."""
    return _COMMANDS.sub(lambda match: ascii(match[0])[1:-1], text)


def visible_json(text: str) -> str:
    r"""JSON that means the same, with these characters as `\u001b`."""
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def shown(text: str) -> str:
    """A text made safe for a terminal: `visible`, and without secrets of the environment."""
    return visible(without_secrets(text))


class _Guarded:
    """A stream that shows texts as `shown` gives them."""

    def __init__(self, stream: Any) -> None:
        self.rich_proxied_file = stream  # Rich writes its colours past this; `terminal.console` guards its texts
        self._stream = stream

    def write(self, text: str) -> int:
        if not _BAR_CONTROL.fullmatch(text):
            text = "\r".join(map(shown, text.split("\r")))  # libraries' bars go back to the line's start
        return int(self._stream.write(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """From here on, show all texts, also those of libraries, without control sequences."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))


def _stand_in(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    replaced = (
        _STAND_INS.get(letter, letter.encode("ascii", "backslashreplace").decode("ascii")) for letter in letters
    )
    return "".join(replaced), error.end


codecs.register_error(_ERRORS, _stand_in)


def accept_all_letters() -> None:
    """Let standard output write in ASCII what its encoding lacks, instead of failing."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and not has_all_letters():
        reconfigure(errors=_ERRORS)


def has_all_letters() -> bool:
    """Whether standard output is in an encoding of Unicode."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
