"""Messages about failures for users, made here from what libraries and the system raise."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes; 0 is success."""
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_WRITABLE = {*DISK_FULL, errno.EROFS, errno.EACCES}
"""A disk that takes no more, or that this user may not write to."""
_MOST_LETTERS = 300
"""Characters of a library's message; some quote the whole file."""


class UserError(Exception):
    """Bad input or a bad state of files; the command line prints it plainly and exits with 2."""


@contextmanager
def reading(path: Path | str, fix: str = "restore it, or get it again") -> Iterator[None]:
    """Turn whatever a library or the system raises inside into an error about the file that is read.

    Only calls that read the file belong inside: a bug there would be blamed on the file.

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
        if not is_file_error(error):
            raise
        raise UserError(f"{path} cannot be read ({reason(error)}); {fix}.") from error


def is_file_error(error: BaseException) -> bool:
    """Whether an error from reading a file is about the file, not about the user, the disk or the device."""
    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in DISK_FULL):
        return False
    # Libraries in Rust panic with a class that is no Exception.
    return type(error).__name__ == "PanicException" or (isinstance(error, Exception) and not _is_out_of_memory(error))


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says that memory is full, a GPU's or the machine's; named, as nothing here imports torch."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    match error:
        case RecursionError():
            return "it is nested too deeply"
        case MemoryError():
            return "it needs more memory than there is"
        case OSError(strerror=str(message)):
            return message
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = text if len(text) <= _MOST_LETTERS else text[:_MOST_LETTERS] + "..."
    # Some messages are a bare name, such as that of a missing key.
    return text if " " in text else f"{type(error).__name__}: {text}".removesuffix(": ")


@dataclass(frozen=True)
class ErrorReport:
    """The exit code and message of a command that raised an error."""

    exit_code: int
    message: str


def error_report(error: BaseException) -> ErrorReport:
    """The last resort: the report of an error that nothing else handled."""
    match error:
        case UserError():
            return ErrorReport(BAD_INPUT, str(error))
        case KeyboardInterrupt():
            return ErrorReport(INTERRUPTED, "Interrupted. The same command resumes where it stopped.")
        case OSError() if error.errno in NOT_WRITABLE:
            fix = "Nothing finished is lost: make room, or choose another outputs=..., and run again."
            return ErrorReport(FAILED, f"{error}\n{fix}")
        case OSError(filename=str(path)):
            return ErrorReport(BAD_INPUT, f"{path}: {reason(error)}. Give another path or name, or mend what is there.")
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        fix = (
            "Take less at once: a smaller recipe.batch_size or matrix.batch_size, more recipe.gradient_accumulation. "
            "`forgetbench models plan` tells what training needs."
        )
        return ErrorReport(FAILED, f"Out of memory: {reason(error)}.\n{fix}")
    return ErrorReport(
        FAILED,
        f"Unexpected {type(error).__name__}: {reason(error).removeprefix(f'{type(error).__name__}: ')}\n"
        "This is a fault of forgetbench, or of the machine, rather than of the input. Run again with --debug for the "
        "traceback, and report it.",
    )
