"""What a user is meant to read of a failure, and the one place that makes it of what libraries and the system raise."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes; 0 is success."""
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {*DISK_FULL, errno.EROFS, errno.EACCES}
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
    # Libraries in Rust panic with a class that is no Exception.
    return type(error).__name__ == "PanicException" or (isinstance(error, Exception) and not _is_full_device(error))


def _is_full_device(error: BaseException) -> bool:
    """Whether torch says that a GPU's memory is full; named, as nothing here imports torch."""
    return type(error).__name__ == "OutOfMemoryError"


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


@dataclass(frozen=True)
class Ending:
    """How a command ends that something was raised in."""

    exit_code: int
    message: str


def ending(error: BaseException) -> Ending:
    """The last resort: what to tell of an error that nobody took, and the exit code."""
    match error:
        case UserError():
            return Ending(BAD_INPUT, str(error))
        case KeyboardInterrupt():
            return Ending(INTERRUPTED, "Interrupted. The same command resumes where it stopped.")
        case OSError() if error.errno in _NOT_WRITABLE:
            fix = "Nothing finished is lost: make room, or choose another outputs=..., and run again."
            return Ending(FAILED, f"{error}\n{fix}")
        case OSError(filename=str(path)):
            return Ending(BAD_INPUT, f"{path}: {reason(error)}. Give another path or name, or mend what is there.")
    if isinstance(error, MemoryError) or _is_full_device(error):
        fix = (
            "Take less at once: a smaller recipe.batch_size or matrix.batch_size, more recipe.gradient_accumulation. "
            "`forgetbench models plan` tells what training needs."
        )
        return Ending(FAILED, f"Out of memory: {reason(error)}.\n{fix}")
    return Ending(
        FAILED,
        f"Unexpected {type(error).__name__}: {reason(error).removeprefix(f'{type(error).__name__}: ')}\n"
        "This is a fault of forgetbench, or of the machine, rather than of the input. Run again with --debug for the "
        "traceback, and report it.",
    )
