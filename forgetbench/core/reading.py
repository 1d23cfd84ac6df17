"""Read files that may be anybody's: ordinary files alone, up to a limit, as UTF-8, without a bomb's worth of memory.

The limits are far above what real data have; what is larger is refused before memory is taken.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from forgetbench.core.errors import UserError, reason

MIB = 2**20
MAX_LINE = 256 * MIB
"""Bytes of one line of a file of rows; pictures in base64 are long."""
MAX_WHOLE = 16 * 1024 * MIB
"""Bytes of a file that is read in one go, such as one JSON list."""
MAX_DEPTH = 100
"""Lists and mappings in each other."""
_BOMB_BYTES, _BOMB_RATIO = 64 * MIB, 200
"""A file that unpacks to more, at such a ratio, is made to fill memory: text shrinks to a tenth, logs to a fiftieth."""
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Marks at the start of files, the longer first."""


def is_file(path: Path) -> bool:
    """Whether there is an ordinary file; false, too, of a name that the system does not take."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def check_file(path: Path, max_bytes: int = MAX_WHOLE) -> None:
    """Refuse what is no ordinary file, or too large: a FIFO never answers, and a device never ends.

    Raises:
        UserError: names the file.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); name a file that is there.") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, a pipe or a socket"
        raise UserError(f"{path} is {kind}, where a file is expected; name a file.")
    if status.st_size > max_bytes:
        raise UserError(
            f"{path} has {status.st_size:,} bytes, and such a file may have {max_bytes:,}; it is damaged, or another "
            "one, or to be split."
        )


def read_bytes(path: Path, max_bytes: int = MAX_WHOLE) -> bytes:
    """All bytes of an ordinary file.

    Raises:
        UserError: it is no ordinary file, too large or not readable; names it.
    """
    check_file(path, max_bytes)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: not readable ({reason(error)}); restore it, or get it again.") from error


def read_text(path: Path, max_bytes: int = MAX_WHOLE) -> str:
    """The text of an ordinary file, without a byte order mark.

    Raises:
        UserError: it is no ordinary file, too large, not readable or no UTF-8; names it.
    """
    return decoded(read_bytes(path, max_bytes), path)


def decoded(data: bytes, where: object) -> str:
    """Bytes as UTF-8, without a byte order mark.

    Raises:
        UserError: they are something else; names where they are from.
    """
    _check_encoding(data, where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"byte {error.start:,} is {data[error.start]:#04x}"
        raise UserError(f"{where} is no text in UTF-8 ({detail}); save it as UTF-8.") from error


def _check_encoding(data: bytes, where: object) -> None:
    if encoding := next((name for mark, name in _WIDE.items() if data.startswith(mark)), None):
        raise UserError(f"{where} is a text in {encoding}; save it as UTF-8.")


def parsed_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, or nested more deeply than MAX_DEPTH.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"lists and mappings are nested more than {MAX_DEPTH} deep") from error
    check_depth(value)
    return value


def check_depth(value: Any, deepest: int = MAX_DEPTH) -> None:
    """Refuse lists and mappings that are nested more deeply than what reads them can follow.

    Raises:
        ValueError: they are.
    """
    level = list(_inside([value]))
    for _ in range(deepest):
        level = [inner for element in level for inner in _inside(element)]
        if not level:
            return
    raise ValueError(f"lists and mappings are nested more than {deepest} deep")


def _inside(value: list[Any] | dict[Any, Any]) -> Iterator[Any]:
    elements = value.values() if isinstance(value, dict) else value
    return (element for element in elements if isinstance(element, list | dict))


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed, by its name."""
    return path.suffix.lower() == ".gz"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """An ordinary file's bytes, unpacked where its name ends in .gz.

    Raises:
        UserError: it is no ordinary file, or broken; reading raises it, too, where it unpacks to a bomb.
    """
    check_file(path, max_bytes=2**63)
    try:
        with path.open("rb") as packed:
            file: Any = io.BufferedReader(_Unpacked(path, packed), MIB) if is_gzip(path) else packed
            _check_encoding(file.peek(4), path)
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not readable ({reason(error)}); restore it, or get it again.") from error


class _Unpacked(io.RawIOBase):
    """A gzip's content, as long as it is no bomb."""

    def __init__(self, path: Path, packed: BinaryIO) -> None:
        self._path, self._packed, self._unpacked = path, packed, gzip.GzipFile(fileobj=packed)
        self._n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._unpacked.read1(len(buffer))
        self._n_bytes += len(data)
        if self._n_bytes > _BOMB_BYTES and self._n_bytes > _BOMB_RATIO * self._packed.tell():
            raise UserError(
                f"{self._path} unpacks to more than {_BOMB_RATIO} times its size; no data do, so it is not read on."
            )
        buffer[: len(data)] = data
        return len(data)


def lines(path: Path, readline: Callable[[int], Any]) -> Iterator[Any]:
    """Lines with their ends, none of which may be longer than MAX_LINE.

    Args:
        path: the file, for the message.
        readline: of the file as it was opened: bytes or text.

    Raises:
        UserError: a line is too long; names the file and the line.
    """
    number = 0
    while line := readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise UserError(f"{path}:{number}: a line of over {MAX_LINE:,} bytes; the file is damaged, or another.")
        yield line


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with their lines' numbers from 1; blank lines are left out.

    Raises:
        UserError: a line holds no object; names the file and the line.
    """
    # Bytes, because text splits lines at U+2028 and the like, which JSON strings may hold.
    with opened(path) as file:
        all_lines = chain.from_iterable(line.splitlines() for line in lines(path, file.readline))  # at a lone \r, too
        for number, line in enumerate(all_lines, start=1):
            bare = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if bare.strip():
                yield number, _object(f"{path}:{number}", bare)


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        content = parsed_json(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({reason(error)}); each line is one item {{...}}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: not a JSON object; each line is one item {{...}}.")
    return content
