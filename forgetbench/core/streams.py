"""Standard output that takes every text, whatever letters the terminal or the pipe has."""

from __future__ import annotations

import codecs
import sys

_STAND_INS = {"±": "+-", "…": "~", "━": "-", "╸": "-", "╺": "-"}
"""For signs that tables and bars are made of; other letters are escaped, so that names stay told apart."""
_ERRORS = "forgetbench_stand_ins"


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
