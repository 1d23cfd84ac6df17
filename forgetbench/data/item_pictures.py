"""Find the pictures of an item: files in a folder or a ZIP, bytes in a table, or texts that hold a whole picture."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

from forgetbench.core.files import replacing
from forgetbench.core.paths import is_relative
from forgetbench.core.records import ImageRef
from forgetbench.data.conversations import Row, is_conversation
from forgetbench.data.manifest import Manifest, downloads
from forgetbench.data.picture_texts import LONGEST_NAME, decoded, decoded_bytes
from forgetbench.data.tables import Stored, content_name

IN_MEMORY = 512 * 2**20
"""Bytes of a split's pictures that stay in memory where tables hold them; the others are read when they are needed."""
_ADDRESS = re.compile(r"(?!file:)[a-zA-Z][a-zA-Z0-9+.-]+://")


class ItemPictures:
    """The pictures of a split's items; those that tables hold each once, as many in memory as `IN_MEMORY` allows."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        """Say where they are.

        Args:
            manifest: a manifest with a source.
            split: the split that is read.
        """
        assert manifest.source is not None
        self._manifest = manifest
        folder = manifest.root / manifest.source.images
        self._folder = str(folder)
        self._folders = (folder, Path(os.path.realpath(folder)))
        columns = manifest.source.columns | manifest.split(split).columns
        self._fields = [name for name in ("image", "images") if name in columns] or ["image", "images"]
        self._known: dict[str, ImageRef] = {}
        self._n_bytes = 0

    def of(self, row: Row) -> tuple[ImageRef, ...]:
        """The pictures of a row, in the order of its field `image` or `images`.

        Raises:
            ValueError: one is no picture, or outside the dataset's folder, or the two fields differ.
        """
        given = [_listed(row[name]) for name in self._fields if row.get(name) is not None]
        if len(given) == 2 and given[0] != given[1] and all(given):
            raise ValueError("its fields `image` and `images` differ; say under `source.columns` which is `image`")
        return tuple(map(self.one, next(filter(None, given), [])))

    def may_show(self, row: Row) -> bool:
        """Whether a row has something in a field of pictures, or turns that may hold some."""
        return is_conversation(row) or any(row.get(name) for name in self._fields)

    def one(self, value: object) -> ImageRef:
        """A picture given as the Hub's {bytes, path}, as bytes, as a file's name, in base64 or as a data URI.

        Raises:
            ValueError: it is none, or outside the dataset's folder.
        """
        held: Row = value if isinstance(value, dict) else {"bytes" if isinstance(value, bytes) else "path": value}
        data: object = held.get("bytes")
        name = held.get("path")
        if isinstance(data, list):
            data = _from_numbers(data)
        elif isinstance(data, str):
            text, data = data, decoded(data)
            if data is None:
                raise ValueError(f"picture '{text[:40]}' is given as bytes, and is neither bytes nor base64")
        elif data is None and isinstance(name, str):
            data = decoded(name)
        if isinstance(data, bytes):
            return self._held(decoded_bytes(data))
        if not isinstance(name, str) or not name:
            raise ValueError(f"`image` must be a file's name or a picture's bytes, not {value!r}")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"`image` is a text of {len(name)} characters, '{name[:40]}...', and no picture in base64")
        return ImageRef(self._folder, self._inside(name))

    def _inside(self, name: str) -> str:
        """The name relative to the dataset's folder."""
        if _ADDRESS.match(name):
            raise ValueError(f"picture '{name}' is an address; download it, and give the file's name")
        name = name.removeprefix("file://")
        path = PurePath(name)
        if is_relative(name):
            return name
        if ".." not in path.parts:
            for folder in self._folders:
                if path.is_relative_to(folder):
                    return path.relative_to(folder).as_posix()
        raise ValueError(
            f"picture '{name}' is outside the dataset's folder {self._folder}; name its folder in `source.images`"
        )

    def _held(self, data: bytes) -> ImageRef:
        # Named by content: a picture of several rows is one cluster, and no two splits' pictures are confused.
        name = content_name(data)
        if name not in self._known:
            self._known[name] = self._new(name, data)
        return self._known[name]

    def _new(self, name: str, data: bytes) -> ImageRef:
        if self._n_bytes + len(data) > IN_MEMORY:
            if isinstance(data, Stored):
                return ImageRef(data.cell, name)
            if self._manifest.source and self._manifest.source.streaming:
                return self._stored(name, data)
        self._n_bytes += len(data)
        return ImageRef(self._manifest.path, name, bytes(data))

    def _stored(self, name: str, data: bytes) -> ImageRef:
        """A streamed picture in a file of its own, which the next pass over the stream finds there."""
        path = downloads() / ".streamed" / self._manifest.name / name
        if not path.is_file():
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        return ImageRef(str(path.parent), name)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _from_numbers(data: list[object]) -> bytes:
    """Bytes that JSON holds as a list of numbers."""
    if not all(isinstance(one, int) and 0 <= one < 256 for one in data):
        raise ValueError("the list `bytes` of its picture holds something else than numbers from 0 to 255")
    return bytes(one for one in data if isinstance(one, int))
