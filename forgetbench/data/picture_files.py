"""Read a picture's file from a folder or a ZIP by the name that an item gives it, however its program writes names.

A name is looked up as it is; then with its letters composed otherwise (macOS takes é apart), with slashes for the
backslashes of Windows, and in another case, where that fits one file alone.
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
"""Of a picture's file; 100 million pixels of 16-bit colour are 0.6 GB."""
_COMPARED = 20_000
"""So many names of a folder are compared with one that is not there."""


def is_archive(container: str) -> bool:
    """Whether pictures are looked up in a ZIP."""
    return container.lower().endswith(".zip") and not Path(container).is_dir()


def with_slashes(name: str) -> str:
    """A relative name as Unix writes it."""
    return name.replace("\\", "/").removeprefix("./")


def read_file(container: str, name: str) -> bytes:
    """The bytes of a file in a folder or a ZIP.

    Raises:
        LookupError: there is no such file, or several that it could be; names those.
        UserError: it is no ordinary file, or too large.
        OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error: it cannot be read.
    """
    if is_archive(container):
        check_file(Path(container), 2**63)
        state = Path(container).stat()
        archive = _zip(container, state.st_size, state.st_mtime_ns)
        try:
            member = archive.getinfo(name)
        except KeyError:
            member = archive.getinfo(_found(name, _members(archive)))
        if member.file_size > MAX_BYTES:
            raise ValueError(f"it unpacks to {member.file_size:,} bytes, and a picture may have {MAX_BYTES:,}")
        return archive.read(member)
    path = Path(container) / name
    if not os.path.lexists(path):
        path = Path(container) / _in_folder(container, name)
    if not is_relative(name) or leads_out_of_data(container, path):
        raise LookupError("it leads out of the folder; copy the file there, or name the folder that it is in")
    return read_bytes(path, MAX_BYTES)


def _in_folder(container: str, name: str) -> str:
    folder = PurePath()
    for part in PurePath(with_slashes(name)).parts:
        if part == "..":
            raise LookupError("it is outside the folder")
        inside = Path(container) / folder
        folder /= part if (inside / part).exists() else _found(part, _entries(str(inside)))
    return str(folder)


def _found(name: str, known: Mapping[str, Iterable[str]]) -> str:
    """The one of `known` that a name stands for."""
    for key in (_key(name), _key(name).casefold()):
        if fitting := sorted(set(known.get(key, ()))):
            if len(fitting) > 1:
                raise LookupError(f"it could be any of {', '.join(map(repr, fitting))}")
            return fitting[0]
    near = difflib.get_close_matches(name, [one for one, _ in zip(known, range(_COMPARED), strict=False)], n=1)
    raise LookupError(f"there is no such file{f'; the nearest name is {near[0]!r}' if near else ''}")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", with_slashes(name))


def _known(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Name as it may be written -> files it may mean; under a name in small letters, all that differ in case alone."""
    known = defaultdict[str, list[str]](list)
    for written, name in names:
        known[_key(written)].append(name)
    for key, held in list(known.items()):
        if key.casefold() != key:
            known[key.casefold()] += held
    return dict(known)


def _entries(folder: str) -> Mapping[str, Iterable[str]]:
    path = Path(folder)
    return _listed(path, path.stat().st_mtime_ns) if path.is_dir() else {}


@lru_cache(maxsize=64)
def _listed(folder: Path, changed_ns: int) -> Mapping[str, Iterable[str]]:
    return _known((path.name, path.name) for path in folder.iterdir())


@lru_cache(maxsize=8)
def _members(archive: zipfile.ZipFile) -> Mapping[str, Iterable[str]]:
    found = []
    for one in archive.infolist():
        found.append((one.filename, one.filename))
        if not one.flag_bits & 0x800 and not one.filename.isascii():
            # macOS and others write UTF-8 without saying so, and `zipfile` reads it as cp437.
            try:
                found.append((one.filename.encode("cp437").decode("utf-8"), one.filename))
            except ValueError:
                continue
    return _known(found)


@lru_cache(maxsize=8)
def _zip(path: str, size: int, changed_ns: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
