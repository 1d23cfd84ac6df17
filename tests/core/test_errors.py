"""What a user reads of an error that a library or the system raised."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from forgetbench.core.errors import UserError, error_report, reading, reason


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), "File name too long"),
        (KeyError("weight_map"), "KeyError: 'weight_map'"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("\n  first line\nsecond line"), "first line"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (MemoryError(), "it needs more memory than there is"),
        (ValueError("long text " * 100), ("long text " * 100)[:300] + "..."),
    ],
)
def test_a_reason_is_one_line(error: Exception, message: str) -> None:
    assert reason(error) == message


def test_what_reading_a_file_raises_names_the_file_and_the_next_step() -> None:
    message = r"^a/b\.json cannot be read \(Expecting property name .*\); copy it again\.$"
    with pytest.raises(UserError, match=message) as caught, reading(Path("a/b.json"), "copy it again"):
        json.loads("{")
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)


def test_a_library_in_rust_that_panics_names_the_file() -> None:
    class PanicException(BaseException):
        """Of this name, and no Exception."""

    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"), reading("tokenizer.json"):
        raise PanicException("index out of bounds")


class OutOfMemoryError(RuntimeError):
    """Named as torch's class for a full device."""


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), UserError("told"), OSError(errno.ENOSPC, "No space left"), OutOfMemoryError("CUDA")],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_the_files_fault_is_passed_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as passed, reading("config.json"):
        raise error
    assert passed.value is error


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (UserError("told"), 2, "told"),
        (KeyboardInterrupt(), 130, "The same command resumes"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 1, "make room"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a/nnn"), 2, "a/nnn: File name too long"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "recipe.batch_size"),
        (MemoryError(), 1, "recipe.batch_size"),
        (KeyError("stage"), 1, "Unexpected KeyError: 'stage'\n"),
        (ConnectionError("no route"), 1, "Unexpected ConnectionError: no route\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_that_nobody_took_ends_in_a_message_and_a_code(
    error: BaseException, exit_code: int, message: str
) -> None:
    end = error_report(error)
    assert end.exit_code == exit_code
    assert message in end.message
