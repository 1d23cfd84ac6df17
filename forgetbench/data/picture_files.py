"""Read a picture file from a folder or a ZIP by the name in an item, tolerating how other systems write names.

A name is looked up unchanged; then in another Unicode normal form (macOS decomposes é), with slashes instead of the
backslashes of Windows, and in another case, if exactly one file matches.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePath

from forgetbench.core.paths import is_relative
from forgetbench.core.reading import check_file, read_bytes
from forgetbench.data.manifest import leads_out_of_data

MAX_BYTES = 2**30
"""Largest picture file; 100 million pixels of 16-bit colour are 0.6 GB."""
_MAX_COMPARED = 20_000
"""Names of a folder that are compared with a missing name, to suggest the nearest."""


def is_archive(container: str) -> bool:
    """Whether the container is a ZIP."""
    return container.lower().endswith(".zip") and not Path(container).is_dir()


def with_slashes(name: str) -> str:
    """A relative path with forward slashes."""
    return name.replace("\\", "/").removeprefix("./")


def read_file(container: str, name: str) -> bytes:
    """The bytes of a file in a folder or a ZIP.

    Raises:
        LookupError: there is no such file, or several files match; names them.
        UserError: it is not a regular file, or too large.
        OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error: it cannot be read.
    """
    if is_archive(container):
        check_file(Path(container), 2**63)
        state = Path(container).stat()
        archive = _open_zip(container, state.st_size, state.st_mtime_ns)
        try:
            member = archive.getinfo(name)
        except KeyError:
            member = archive.getinfo(_resolve_name(name, _members(archive)))
        if member.file_size > MAX_BYTES:
            raise ValueError(f"it unpacks to {member.file_size:,} bytes, and a picture may have {MAX_BYTES:,}")
        return archive.read(member)
    path = Path(container) / name
    if not os.path.lexists(path):
        path = Path(container) / _resolve_path(container, name)
    if not is_relative(name) or leads_out_of_data(container, path):
        raise LookupError("it leads out of the folder; copy the file there, or name the folder that it is in")
    return read_bytes(path, MAX_BYTES)


def _resolve_path(container: str, name: str) -> str:
    folder = PurePath()
    for part in PurePath(with_slashes(name)).parts:
        if part == "..":
            raise LookupError("it is outside the folder")
        inside = Path(container) / folder
        folder /= part if (inside / part).exists() else _resolve_name(part, _entries(str(inside)))
    return str(folder)


def _resolve_name(name: str, known: Mapping[str, Iterable[str]]) -> str:
    """The file in `known` that a name refers to."""
    for key in (_normalise(name), _normalise(name).casefold()):
        if matches := sorted(set(known.get(key, ()))):
            if len(matches) > 1:
                raise LookupError(f"it could be any of {', '.join(map(repr, matches))}")
            return matches[0]
    similar = difflib.get_close_matches(
        name, [known_name for known_name, _ in zip(known, range(_MAX_COMPARED), strict=False)], n=1
    )
    raise LookupError(f"there is no such file{f'; the nearest name is {similar[0]!r}' if similar else ''}")


def _normalise(name: str) -> str:
    return unicodedata.normalize("NFC", with_slashes(name))


def _index_names(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Normalised name -> matching files; the lower-case name lists all files that differ only in case."""
    known = defaultdict[str, list[str]](list)
    for written, name in names:
        known[_normalise(written)].append(name)
    for key, files in list(known.items()):
        if key.casefold() != key:
            known[key.casefold()] += files
    return dict(known)


def _entries(folder: str) -> Mapping[str, Iterable[str]]:
    path = Path(folder)
    return _list_folder(path, path.stat().st_mtime_ns) if path.is_dir() else {}


@lru_cache(maxsize=64)
def _list_folder(folder: Path, changed_ns: int) -> Mapping[str, Iterable[str]]:
    return _index_names((path.name, path.name) for path in folder.iterdir())


@lru_cache(maxsize=8)
def _members(archive: zipfile.ZipFile) -> Mapping[str, Iterable[str]]:
    names = []
    for member in archive.infolist():
        names.append((member.filename, member.filename))
        if not member.flag_bits & 0x800 and not member.filename.isascii():
            # macOS and others write UTF-8 without setting the flag, and `zipfile` reads it as cp437.
            try:
                names.append((member.filename.encode("cp437").decode("utf-8"), member.filename))
            except ValueError:
                continue
    return _index_names(names)


@lru_cache(maxsize=8)
def _open_zip(path: str, size: int, changed_ns: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
