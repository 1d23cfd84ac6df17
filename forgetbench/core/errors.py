"""What a user is meant to read of a failure, and the one place that makes it of what libraries and the system raise."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MOST_LETTERS = 300
"""Of a library's sentence; some quote the whole file."""


class UserError(Exception):
    """Bad input or a bad state of files; the command line prints it plainly and exits with 2."""


@contextmanager
def reading(path: Path | str, fix: str = "restore it, or get it again") -> Iterator[None]:
    """Take whatever a library or the system raises inside for a fault of the file that is read.

    Only calls that read the file belong inside: a bug there would be told as the file's.

    Args:
        path: the file or folder, or what messages call it.
        fix: the next step, as the end of a sentence.

    Raises:
        UserError: names the file; the error is its cause.
        OSError: the disk is full, which is not the file's fault.
    """
    try:
        yield
    except BaseException as error:
        if not _is_told_of_a_file(error):
            raise
        raise UserError(f"{path} cannot be read ({reason(error)}); {fix}.") from error


def _is_told_of_a_file(error: BaseException) -> bool:
    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in DISK_FULL):
        return False
    name = type(error).__name__
    # Torch's own class says that the device is full. Libraries in Rust panic with a class that is no Exception.
    return name == "PanicException" or (isinstance(error, Exception) and name != "OutOfMemoryError")


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    match error:
        case RecursionError():
            return "it is nested too deeply"
        case MemoryError():
            return "it needs more memory than there is"
        case OSError(strerror=str(said)):
            return said
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = text if len(text) <= _MOST_LETTERS else text[:_MOST_LETTERS] + "..."
    # The text of some is a bare name, such as that of a key that is missing.
    return text if " " in text else f"{type(error).__name__}: {text}".removesuffix(": ")
