"""Standard output and error that take every text, and show what would command the terminal instead of passing it on."""

from __future__ import annotations

import codecs
import re
import sys
from typing import Any

from forgetbench.core.secrets import without_secrets

_STAND_INS = {"±": "+-", "…": "~", "━": "-", "╸": "-", "╺": "-"}
"""For signs that tables and bars are made of; other letters are escaped, so that names stay told apart."""
_ERRORS = "forgetbench_stand_ins"
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move the cursor, colour, title or reorder what is shown: control characters and marks of direction."""
_OF_BARS = re.compile(r"[\r\n]*(?:\x1b\[A)*")
"""What libraries write by itself to go up to a progress bar."""


def visible(text: str) -> str:
    r"""The text with its control characters and marks of direction as Python writes them, such as `\x1b`."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_json(text: str) -> str:
    r"""JSON that means the same, with these characters as `\u001b`."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shown(text: str) -> str:
    """A text as it may stand on a terminal, whoever wrote it: `visible`, and without secrets of the environment."""
    return visible(without_secrets(text))


class _Guarded:
    """A stream that shows texts as `shown` gives them."""

    def __init__(self, stream: Any) -> None:
        self.rich_proxied_file = stream  # Rich writes its colours past this; `terminal.console` guards its texts
        self._stream = stream

    def write(self, text: str) -> int:
        if not _OF_BARS.fullmatch(text):
            text = "\r".join(map(shown, text.split("\r")))  # libraries' bars go back to the line's start
        return int(self._stream.write(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Show names, messages and logs from here on, of libraries too, without what would command the terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))


def _stand_in(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    shown = (_STAND_INS.get(one, one.encode("ascii", "backslashreplace").decode("ascii")) for one in letters)
    return "".join(shown), error.end


codecs.register_error(_ERRORS, _stand_in)


def accept_all_letters() -> None:
    """Let standard output write in ASCII what its encoding lacks, instead of failing."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and not has_all_letters():
        reconfigure(errors=_ERRORS)


def has_all_letters() -> bool:
    """Whether standard output is in an encoding of Unicode."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
